//! systemd, if it has started the program. Nothing is done where it has not.

use std::env;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::os::Phase;

/// How often the line in `systemctl status` is renewed.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// Tells systemd how the program is. What it does not take is no reason to fail.
pub fn tell_manager(phase: Phase<'_>) {
    let _ = match phase {
        Phase::Ready(status) | Phase::Reloaded(status) => sd_notify::notify(&[
            NotifyState::Ready,
            NotifyState::Watchdog,
            NotifyState::Status(&in_one_line(status)),
        ]),
        Phase::Alive(status) => sd_notify::notify(&[
            NotifyState::Watchdog,
            NotifyState::Status(&in_one_line(status)),
        ]),
        Phase::Reloading => NotifyState::monotonic_usec_now()
            .and_then(|now| sd_notify::notify(&[NotifyState::Reloading, now])),
        Phase::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
    };
}

/// Each line of a message says something of its own, `STOPPING=1` for instance. A status may quote
/// what files and other machines say.
fn in_one_line(status: &str) -> String {
    status
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// How often [`Phase::Alive`] is wanted, if it is: twice as often as systemd loses patience.
#[must_use]
pub fn wanted_signs_of_life() -> Option<Duration> {
    env::var_os("NOTIFY_SOCKET")?;
    let wanted = sd_notify::watchdog_enabled().map(|patience| patience / 2);
    Some(wanted.unwrap_or(STATUS_EVERY).min(STATUS_EVERY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_line() {
        assert_eq!(in_one_line("all\r\nSTOPPING=1"), "all  STOPPING=1");
    }
}
