//! The service manager: it starts and stops the program, and tells it to read its files again.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use windows_service::define_windows_service;
use windows_service::service::{
    Service, ServiceAccess, ServiceAction, ServiceActionType, ServiceControl, ServiceControlAccept,
    ServiceErrorControl, ServiceExitCode, ServiceFailureActions, ServiceFailureResetPeriod,
    ServiceInfo, ServiceStartType, ServiceState, ServiceStatus, ServiceType,
};
use windows_service::service_control_handler::{
    self, ServiceControlHandlerResult, ServiceStatusHandle,
};
use windows_service::service_dispatcher;
use windows_service::service_manager::{ServiceManager, ServiceManagerAccess};

use super::signals::{ServiceRequest, control};
use crate::os::Phase;

/// How long a start or stop that was asked for may take before that is an error.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Pause before the manager starts a service again that has ended by itself.
const RESTART_PAUSE: Duration = Duration::from_secs(2);
/// How long it must have run for its failures to be forgotten.
const FAILURES_ARE_FORGOTTEN: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a phase of this program may last before the manager takes it for dead: the sessions of a
/// large folder are read at the start.
const PHASE: Duration = Duration::from_secs(10 * 60);

/// How long the service may take to stop before the machine goes down: requests in flight finish, and a
/// state server writes its sessions. A service that is told with all others has five seconds.
const PRESHUTDOWN: Duration = Duration::from_secs(120);

/// How often it is looked whether something is wrong that belongs in the event log.
const LOOK_FOR_FINDINGS_EVERY: Duration = Duration::from_secs(10);

/// The number of all our events; the text tells them apart.
const EVENT_ID: &str = "1";

/// The service manager refused something.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// It cannot be asked.
    #[error("cannot {action} the service {name}: {}", reason(source))]
    Refused {
        /// What was asked.
        action: &'static str,
        /// The service.
        name: String,
        /// The manager's word.
        source: windows_service::Error,
    },
    /// It did not get there in time.
    #[error("the service {name} does not {action}: it is {state} after {} s; the event log says why", PATIENCE.as_secs())]
    TimedOut {
        /// What was asked.
        action: &'static str,
        /// The service.
        name: String,
        /// What it is instead.
        state: &'static str,
    },
    /// The folder of the service cannot be made or kept from others.
    #[error("cannot make the folder {} for the service {name} alone: {source}", folder.display())]
    Folder {
        /// The service.
        name: String,
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What the system itself said, where it did.
fn reason(error: &windows_service::Error) -> String {
    match error {
        windows_service::Error::Winapi(error)
            if error.kind() == io::ErrorKind::PermissionDenied =>
        {
            format!("{error}; run this in a console that was opened as administrator")
        }
        windows_service::Error::Winapi(error) => error.to_string(),
        other => other.to_string(),
    }
}

/// Where a service keeps its files if nothing else is said.
#[must_use]
pub fn service_folder() -> PathBuf {
    let data = env::var_os("ProgramData").unwrap_or_else(|| OsString::from(r"C:\ProgramData"));
    PathBuf::from(data).join("staterouter")
}

/// Installs a service that runs this program with `arguments` when the machine starts, under an
/// account of its own, for which it makes [`service_folder`]. Returns why the manager will not start
/// it again when it fails, if it will not.
///
/// # Errors
/// [`ServiceError`], here and below.
pub fn install_service(
    name: &str,
    display_name: &str,
    arguments: Vec<OsString>,
) -> Result<Option<String>, ServiceError> {
    let failed = |source| refused("install", name, source);
    let program =
        env::current_exe().map_err(|error| failed(windows_service::Error::Winapi(error)))?;
    let access = ServiceManagerAccess::CONNECT | ServiceManagerAccess::CREATE_SERVICE;
    let manager = ServiceManager::local_computer(None::<&str>, access).map_err(failed)?;
    let info = ServiceInfo {
        name: name.into(),
        display_name: display_name.into(),
        service_type: ServiceType::OWN_PROCESS,
        start_type: ServiceStartType::AutoStart,
        error_control: ServiceErrorControl::Normal,
        executable_path: program,
        launch_arguments: arguments,
        dependencies: Vec::new(),
        account_name: Some(account(name).into()),
        account_password: None,
    };
    let access = ServiceAccess::CHANGE_CONFIG | ServiceAccess::START | ServiceAccess::DELETE;
    let service = manager.create_service(&info, access).map_err(failed)?;
    if let Err(error) = make_folder(name) {
        // Only now its account exists. What is half installed would be in the way of the next try.
        let _ = service.delete();
        return Err(error);
    }
    // Without it the system's own time counts.
    let _ = service.set_preshutdown_timeout(PRESHUTDOWN);
    Ok(set_failure_actions(&service)
        .err()
        .map(|error| reason(&error)))
}

/// Has the manager start the service again whenever it ends by itself.
fn set_failure_actions(service: &Service) -> windows_service::Result<()> {
    service.set_description("Sessions of ASP.NET applications")?;
    let restart = ServiceAction {
        action_type: ServiceActionType::Restart,
        delay: RESTART_PAUSE,
    };
    service.update_failure_actions(ServiceFailureActions {
        reset_period: ServiceFailureResetPeriod::After(FAILURES_ARE_FORGOTTEN),
        reboot_msg: None,
        command: None,
        actions: Some(vec![restart.clone(), restart.clone(), restart]),
    })?;
    service.set_failure_actions_on_non_crash_failures(true)
}

/// The account that Windows makes for a service of this name. It needs no password.
fn account(name: &str) -> String {
    format!(r"NT SERVICE\{name}")
}

/// A folder for administrators, the system and the service: tokens, the hash key and sessions lie
/// there.
fn make_folder(name: &str) -> Result<(), ServiceError> {
    let folder = service_folder();
    let failed = |source| ServiceError::Folder {
        name: name.to_owned(),
        folder: folder.clone(),
        source,
    };
    std::fs::create_dir_all(&folder).map_err(failed)?;
    // The two groups by their numbers: their names are translated.
    let grants = [
        "*S-1-5-18:(OI)(CI)F".to_owned(),
        "*S-1-5-32-544:(OI)(CI)F".to_owned(),
        format!("{}:(OI)(CI)M", account(name)),
    ];
    let mut command = Command::new("icacls");
    command.arg(&folder).arg("/inheritance:r").arg("/grant");
    let done = command
        .args(grants)
        .stdout(Stdio::null())
        .status()
        .map_err(failed)?;
    match done.success() {
        true => Ok(()),
        false => Err(failed(io::Error::other(format!(
            "icacls ended with {done}"
        )))),
    }
}

/// Stops the service if it runs, and takes it out of the manager's list.
pub fn uninstall_service(name: &str) -> Result<(), ServiceError> {
    let access = ServiceAccess::DELETE | ServiceAccess::QUERY_STATUS | ServiceAccess::STOP;
    let service = open("uninstall", name, access)?;
    stop(&service, name)?;
    service
        .delete()
        .map_err(|source| refused("uninstall", name, source))
}

/// Starts the service and waits until it serves.
pub fn start_service(name: &str) -> Result<(), ServiceError> {
    let service = open(
        "start",
        name,
        ServiceAccess::START | ServiceAccess::QUERY_STATUS,
    )?;
    if state(&service, "start", name)? == ServiceState::Running {
        return Ok(());
    }
    service
        .start::<&OsStr>(&[])
        .map_err(|source| refused("start", name, source))?;
    wait(&service, "start", name, ServiceState::Running)
}

/// Stops the service in good order and waits until it has ended.
pub fn stop_service(name: &str) -> Result<(), ServiceError> {
    let service = open(
        "stop",
        name,
        ServiceAccess::STOP | ServiceAccess::QUERY_STATUS,
    )?;
    stop(&service, name)
}

fn stop(service: &Service, name: &str) -> Result<(), ServiceError> {
    match state(service, "stop", name)? {
        ServiceState::Stopped => return Ok(()),
        // Once is enough: asked a second time, it would not wait for requests in flight.
        ServiceState::StopPending => {}
        _ => {
            let asked = service.stop();
            asked.map_err(|source| refused("stop", name, source))?;
        }
    }
    wait(service, "stop", name, ServiceState::Stopped)
}

/// What the manager says of the service, in a word.
pub fn service_state(name: &str) -> Result<&'static str, ServiceError> {
    let service = open("ask after", name, ServiceAccess::QUERY_STATUS)?;
    state(&service, "ask after", name).map(word)
}

fn open(action: &'static str, name: &str, access: ServiceAccess) -> Result<Service, ServiceError> {
    let failed = |source| refused(action, name, source);
    let manager = ServiceManager::local_computer(None::<&str>, ServiceManagerAccess::CONNECT);
    manager
        .map_err(failed)?
        .open_service(name, access)
        .map_err(failed)
}

fn refused(action: &'static str, name: &str, source: windows_service::Error) -> ServiceError {
    let name = name.to_owned();
    ServiceError::Refused {
        action,
        name,
        source,
    }
}

fn state(
    service: &Service,
    action: &'static str,
    name: &str,
) -> Result<ServiceState, ServiceError> {
    let status = service.query_status();
    Ok(status
        .map_err(|source| refused(action, name, source))?
        .current_state)
}

fn wait(
    service: &Service,
    action: &'static str,
    name: &str,
    wanted: ServiceState,
) -> Result<(), ServiceError> {
    let due = Instant::now() + PATIENCE;
    loop {
        let state = state(service, action, name)?;
        if state == wanted {
            return Ok(());
        }
        let has_ended = state == ServiceState::Stopped;
        if has_ended || Instant::now() >= due {
            return Err(ServiceError::TimedOut {
                action,
                name: name.to_owned(),
                state: word(state),
            });
        }
        thread::sleep(LOOK_EVERY);
    }
}

fn word(state: ServiceState) -> &'static str {
    match state {
        ServiceState::Stopped => "stopped",
        ServiceState::StartPending => "starting",
        ServiceState::StopPending => "stopping",
        ServiceState::Running => "running",
        ServiceState::ContinuePending | ServiceState::PausePending | ServiceState::Paused => {
            "paused"
        }
    }
}

/// What this process does as a service, and under which name.
struct Work {
    name: String,
    /// Returns the exit code of the program.
    run: Box<dyn Fn() -> u32 + Send + Sync>,
}

static WORK: OnceLock<Work> = OnceLock::new();
static STATUS: OnceLock<ServiceStatusHandle> = OnceLock::new();

define_windows_service!(service_entry, service_main);

/// Runs `run` as the service `name`: the manager has started this process and says when to stop.
pub fn run_as_service(
    name: &str,
    run: impl Fn() -> u32 + Send + Sync + 'static,
) -> Result<(), ServiceError> {
    let work = Work {
        name: name.to_owned(),
        run: Box::new(run),
    };
    let _ = WORK.set(work);
    let started = service_dispatcher::start(name, service_entry);
    started.map_err(|source| refused("run", name, source))
}

fn service_main(_arguments: Vec<OsString>) {
    let Some(work) = WORK.get() else {
        return;
    };
    let handler = |asked| match asked {
        ServiceControl::Stop | ServiceControl::Preshutdown => {
            control(ServiceRequest::Stop);
            ServiceControlHandlerResult::NoError
        }
        ServiceControl::ParamChange => {
            control(ServiceRequest::Reload);
            ServiceControlHandlerResult::NoError
        }
        ServiceControl::Interrogate => ServiceControlHandlerResult::NoError,
        _ => ServiceControlHandlerResult::NotImplemented,
    };
    let Ok(status) = service_control_handler::register(&work.name, handler) else {
        return;
    };
    let _ = STATUS.set(status);
    report(ServiceState::StartPending, 0);
    let code = (work.run)();
    let name = &work.name;
    match code {
        0 => log_event(
            ServiceEvent::Information,
            &format!("The service {name} has stopped."),
        ),
        _ => log_event(
            ServiceEvent::Error,
            &format!("The service {name} has ended with exit code {code}. Its log says why."),
        ),
    }
    report(ServiceState::Stopped, code);
}

/// Tells the service manager how the program is, if that has started it.
pub fn tell_manager(phase: Phase<'_>) {
    let Some(Work { name, .. }) = WORK.get() else {
        return;
    };
    match phase {
        Phase::Ready(status) => {
            report(ServiceState::Running, 0);
            log_event(
                ServiceEvent::Information,
                &format!("The service {name} has started: {status}."),
            );
            *LAST_SAID.lock().unwrap_or_else(PoisonError::into_inner) = without_numbers(status);
        }
        Phase::Alive(status) | Phase::Reloaded(status) => tell_what_is_new(name, status),
        // The manager has no word for it.
        Phase::Reloading => {}
        Phase::Stopping => report(ServiceState::StopPending, 0),
    }
}

/// What the event log knows of how the program is.
static LAST_SAID: Mutex<String> = Mutex::new(String::new());

/// What is wrong, and that it is over, is an event of its own each time it changes.
fn tell_what_is_new(name: &str, status: &str) {
    let mut last = LAST_SAID.lock().unwrap_or_else(PoisonError::into_inner);
    let now = without_numbers(status);
    if *last != now {
        log_event(
            ServiceEvent::Warning,
            &format!("The service {name} is now: {status}."),
        );
        *last = now;
    }
}

/// Sessions and percents change all the time.
fn without_numbers(status: &str) -> String {
    status.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// How often [`Phase::Alive`] is wanted: the manager never asks, and the event log wants to know.
#[must_use]
pub fn wanted_signs_of_life() -> Option<Duration> {
    WORK.get().map(|_| LOOK_FOR_FINDINGS_EVERY)
}

fn report(state: ServiceState, code: u32) {
    let Some(status) = STATUS.get() else {
        return;
    };
    let is_pending = matches!(
        state,
        ServiceState::StartPending | ServiceState::StopPending
    );
    let controls = match state {
        ServiceState::Running => {
            ServiceControlAccept::STOP
                | ServiceControlAccept::PRESHUTDOWN
                | ServiceControlAccept::PARAM_CHANGE
        }
        ServiceState::StartPending => {
            ServiceControlAccept::STOP | ServiceControlAccept::PRESHUTDOWN
        }
        _ => ServiceControlAccept::empty(),
    };
    let exit_code = match code {
        0 => ServiceExitCode::NO_ERROR,
        code => ServiceExitCode::ServiceSpecific(code),
    };
    // Without its ear there is nobody to tell.
    let _ = status.set_service_status(ServiceStatus {
        service_type: ServiceType::OWN_PROCESS,
        current_state: state,
        controls_accepted: controls,
        exit_code,
        checkpoint: u32::from(is_pending),
        wait_hint: if is_pending { PHASE } else { Duration::ZERO },
        process_id: None,
    });
}

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceEvent {
    /// It started, or ended as it was told.
    Information,
    /// Something is wrong or no longer is.
    Warning,
    /// It failed.
    Error,
}

/// Writes to the event log "Application". The system's own program does it, whose messages need no
/// file of ours to be read. What it cannot write is in the log of the service.
pub fn log_event(kind: ServiceEvent, text: &str) {
    let kind = match kind {
        ServiceEvent::Information => "INFORMATION",
        ServiceEvent::Warning => "WARNING",
        ServiceEvent::Error => "ERROR",
    };
    let mut command = Command::new("eventcreate");
    command
        .args([
            "/L",
            "APPLICATION",
            "/SO",
            "staterouter",
            "/ID",
            EVENT_ID,
            "/T",
            kind,
            "/D",
        ])
        .arg(text)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    match command.status() {
        Ok(done) if done.success() => {}
        Ok(done) => tracing::debug!("eventcreate ended with {done}"),
        Err(error) => tracing::debug!(%error, "cannot run eventcreate"),
    }
}
