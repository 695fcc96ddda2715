//! `staterouter manual`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;

use super::{Arguments, Exit, output};

#[derive(Debug, clap::Args)]
pub(super) struct ManualArgs {
    /// The folder, which is made if it is not there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(super) fn run(args: &ManualArgs) -> Exit {
    match write(&args.folder) {
        Ok(()) => Exit::Fine,
        Err(error) => output::could_not_run(format_args!(
            "cannot write to {}: {error}",
            args.folder.display()
        )),
    }
}

fn write(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Arguments::command(), folder)?;
    for shell in Shell::value_variants() {
        clap_complete::generate_to(*shell, &mut Arguments::command(), "staterouter", folder)?;
    }
    Ok(())
}
