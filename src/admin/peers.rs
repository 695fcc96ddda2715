//! Asks the other proxies of the farm how they are.

use std::collections::HashMap;

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::MissedTickBehavior;

use super::client::{AdminClient, AdminError, AdminWay};
use super::options::AdminOptions;
use crate::backend::ConnectError;
use crate::config::{BackendAddress, TlsTrust};
use crate::control::handle::{ControlHandle, PeerNews};

/// Asks every peer of the main file in force, until `stopped` or control has ended.
pub(super) async fn ask_all(
    mut control: ControlHandle,
    options: AdminOptions,
    trust: Option<TlsTrust>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut asking: HashMap<BackendAddress, AbortHandle> = HashMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let published = control.published();
        let peers = &published.peers;
        asking.retain(|peer, task| {
            let stays = peers.contains(peer);
            if !stays {
                task.abort();
            }
            stays
        });
        for peer in peers {
            if !asking.contains_key(peer) {
                let way = AdminWay::to(peer, trust.as_ref());
                let client = AdminClient::new(peer.clone(), way, options.ask_timeout);
                let task = ask_for_ever(
                    peer.clone(),
                    client,
                    control.clone(),
                    options,
                    stopped.clone(),
                );
                asking.insert(peer.clone(), tasks.spawn(task));
            }
        }
        tokio::select! {
            changed = control.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            _ = stopped.wait_for(|stop| *stop) => return,
        }
    }
}

/// Asks the peer at `address` again and again.
async fn ask_for_ever(
    address: BackendAddress,
    mut peer: AdminClient,
    control: ControlHandle,
    options: AdminOptions,
    mut stopped: watch::Receiver<bool>,
) {
    let mut interval = tokio::time::interval(options.ask_every);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let asking = async {
        loop {
            interval.tick().await;
            let asked_ms = control.published().peer.clock.now_ms();
            let (answer, is_there) = report_of(&mut peer).await;
            let news = PeerNews {
                address: address.clone(),
                asked_ms,
                answer,
                is_there,
            };
            if control.tell_of_peer(news).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = asking => {}
        _ = stopped.wait_for(|stop| *stop) => {}
    }
}

/// The body of its report, or why there is none; and whether anything is there at all.
async fn report_of(peer: &mut AdminClient) -> (Result<Vec<u8>, String>, bool) {
    match peer.get("/peer").await {
        Ok(answer) if answer.status == 200 => (Ok(answer.body), true),
        Ok(answer) => (Err(format!("it answered {}", answer.status)), true),
        Err(error) => {
            let is_there = is_there(&error);
            (Err(error.to_string()), is_there)
        }
    }
}

/// Whether something runs there. What has taken the connection may be a proxy that serves users, whatever
/// its certificate is like.
fn is_there(error: &AdminError) -> bool {
    match error {
        AdminError::Connect(ConnectError::Untrusted(_)) => true,
        AdminError::Connect(_) | AdminError::Unaskable(_) | AdminError::Nameless => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_peer_that_is_not_trusted_runs_and_one_that_takes_no_connection_does_not() {
        let failed = || io::Error::other("bad certificate");
        assert!(is_there(&AdminError::Connect(ConnectError::Untrusted(
            failed()
        ))));
        assert!(is_there(&AdminError::Http("reset".to_owned())));
        assert!(!is_there(&AdminError::Connect(ConnectError::Refused(
            failed()
        ))));
    }
}
