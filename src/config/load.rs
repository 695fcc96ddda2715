//! Reading the files from disk.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::fault::{Fault, Faults};
use super::partition_map::{BackendSpec, MapFile, PartitionMap};
use super::raw::MAX_FILE_BYTES;
use super::staterouter_file::{Config, MainFile};
use super::tls_section::TlsTrust;
use super::token::AdminToken;
use crate::os::read_regular;
use crate::tls::{ClientTls, ServerFiles, ServerTls};

/// Both files, without a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedConfig {
    /// The main file.
    pub config: Config,
    /// The partition map the main file names.
    pub partition_map: PartitionMap,
    /// What is accepted in both and hardly meant.
    pub warnings: Vec<Fault>,
}

/// Why the files could not be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The operating system did not give the file.
    #[error("cannot read {}: {problem}; {help}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        problem: io::Error,
        /// What to do about it.
        help: &'static str,
    },
    /// The files were read and are not right.
    #[error(transparent)]
    Faults(#[from] Faults),
}

/// Reads the main file at `path` and the token that it names, and not the partition map: the file
/// and what is accepted in it and hardly meant.
///
/// # Errors
/// [`LoadError::Io`] if it cannot be read, else all its faults.
pub fn load_main(path: &Path) -> Result<(Config, Vec<Fault>), LoadError> {
    let bytes = read_file(path)?;
    let MainFile { config, report, .. } = parse_main(&bytes, path);
    Ok(report.finish(config)?)
}

/// Reads the main file at `path`, and none of the files that it names.
///
/// # Errors
/// [`LoadError::Io`] if it cannot be read, else all its faults.
pub fn read_main(path: &Path) -> Result<Config, LoadError> {
    Ok(Config::parse(read_file(path)?, &path.to_string_lossy())?)
}

/// Reads the main file at `path`, the partition map and the token it names.
///
/// # Errors
/// [`LoadError::Io`] if the main file cannot be read, else the faults of both files together. A
/// partition map that cannot be read is a fault of the main file, at its `partition_map`; so is a
/// token, at its `admin.token_file`.
pub fn load(path: &Path) -> Result<LoadedConfig, LoadError> {
    let bytes = read_file(path)?;
    let MainFile {
        config,
        partition_map,
        mut report,
        ..
    } = parse_main(&bytes, path);
    let Some((map_path, place)) = partition_map else {
        return Err(report.into_faults().into());
    };
    let partition_map = match read_file(&map_path) {
        Ok(bytes) => {
            let mut map = MapFile::read(&bytes, &map_path.to_string_lossy());
            map.read_certificates();
            let backend_tls = config
                .as_ref()
                .and_then(|config| config.backend_tls.as_ref());
            map.check_plain(backend_tls.map_or(&[], |tls| &tls.plain));
            // Nobody crowds a proxy that only this machine reaches.
            if config.as_ref().is_some_and(Config::is_for_others) {
                map.warn_of_known_key();
            }
            map.finish()
        }
        Err(Unreadable {
            path,
            problem,
            help,
        }) => {
            report.sink.add(
                place,
                format!("cannot read {}: {problem}", path.display()),
                help,
            );
            return Err(report.into_faults().into());
        }
    };
    if let (Some(config), Ok((map, _))) = (&config, &partition_map) {
        let is_itself = |backend: &&BackendSpec| backend.address.reaches(config.listen);
        for backend in map.backends.iter().filter(is_itself) {
            let BackendSpec { name, address, .. } = backend;
            let problem = format!(
                "backend {name} in {} has address {address}, where this proxy itself listens",
                map_path.display()
            );
            let help =
                "put the state server's own address there, or let the proxy listen elsewhere";
            report.sink.add(place, problem, help);
        }
    }
    match (report.finish(config), partition_map) {
        (Ok((config, mut warnings)), Ok((partition_map, more))) => {
            warnings.extend(more);
            Ok(LoadedConfig {
                config,
                partition_map,
                warnings,
            })
        }
        (Err(faults), Ok(_)) | (Ok(_), Err(faults)) => Err(faults.into()),
        (Err(faults), Err(more)) => Err(faults.followed_by(more).into()),
    }
}

/// The main file, of which `bytes` were read at `path`, with the token that it names.
fn parse_main<'t>(bytes: &'t [u8], path: &Path) -> MainFile<'t> {
    let mut main = MainFile::read(bytes, &path.to_string_lossy());
    try_certificates(&mut main);
    if let Some((path, place)) = main.token_file.take() {
        match AdminToken::read(&path) {
            Ok(token) => {
                if let Some(config) = &mut main.config {
                    config.admin.token = Some(token);
                }
            }
            Err(problem) => {
                let problem = format!("no token in {}: {problem}", path.display());
                let help = "write one with `openssl rand -hex 32`";
                main.report.sink.add(place, problem, help);
            }
        }
    }
    main
}

/// Files that give no working end of a connection are faults of the file that names them.
fn try_certificates(main: &mut MainFile<'_>) {
    let Some(config) = &main.config else {
        return;
    };
    let server = |files: &Option<ServerFiles>| {
        let files = files.clone();
        files.and_then(|files| ServerTls::load("clients", files).err())
    };
    let client = |trust: Option<&TlsTrust>| {
        let files = trust.map(|trust| trust.files.clone());
        files.and_then(|files| ClientTls::load("servers", files).err())
    };
    let backends = config.backend_tls.as_ref().map(|tls| &tls.trust);
    let places = main.tls_places;
    for (problem, place) in [
        (server(&config.tls), places.listen),
        (server(&config.admin.tls), places.admin),
        (client(backends), places.backends),
        (client(config.peer_tls.as_ref()), places.peers),
    ] {
        if let (Some(problem), Some(place)) = (problem, place) {
            let help = "name a certificate and its key in PEM form, that staterouter may read";
            main.report.sink.add(place, problem.to_string(), help);
        }
    }
}

/// Reads the partition map at `path`.
///
/// # Errors
/// [`LoadError::Io`] if it cannot be read, else all its faults.
pub fn load_partition_map(path: &Path) -> Result<PartitionMap, LoadError> {
    let bytes = read_map_text(path)?;
    let mut map = MapFile::read(&bytes, &path.to_string_lossy());
    map.read_certificates();
    Ok(map.finish()?.0)
}

/// The text of the partition map at `path`, whatever stands there; of one that is too long for a
/// map, a byte more than is allowed.
///
/// # Errors
/// [`LoadError::Io`].
pub fn read_map_text(path: &Path) -> Result<Vec<u8>, LoadError> {
    Ok(read_file(path)?)
}

struct Unreadable {
    path: PathBuf,
    problem: io::Error,
    help: &'static str,
}

impl From<Unreadable> for LoadError {
    fn from(
        Unreadable {
            path,
            problem,
            help,
        }: Unreadable,
    ) -> Self {
        LoadError::Io {
            path,
            problem,
            help,
        }
    }
}

/// The bytes of a file, at most one more than allowed: the parser refuses the longer file.
fn read_file(path: &Path) -> Result<Vec<u8>, Unreadable> {
    read_regular(path, MAX_FILE_BYTES as u64).map_err(|problem| {
        let help = match problem.kind() {
            io::ErrorKind::NotFound => "create the file or correct the path",
            io::ErrorKind::PermissionDenied => "let the user that runs staterouter read it",
            _ => "name a regular file",
        };
        Unreadable {
            path: path.to_owned(),
            problem,
            help,
        }
    })
}
