//! Asks the other proxies of the farm how they are.

use std::collections::HashMap;

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::MissedTickBehavior;

use super::client::{AdminClient, AdminError};
use super::options::AdminOptions;
use crate::config::BackendAddress;
use crate::control::handle::{ControlHandle, PeerNews};

/// Asks every peer of the main file in force, until `stopped` or control has ended.
pub(super) async fn ask_all(
    mut control: ControlHandle,
    options: AdminOptions,
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
                let task = ask_for_ever(peer.clone(), control.clone(), options, stopped.clone());
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
    control: ControlHandle,
    options: AdminOptions,
    mut stopped: watch::Receiver<bool>,
) {
    let mut interval = tokio::time::interval(options.ask_every);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut peer = AdminClient::new(address.clone(), options.ask_timeout);
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
            let is_there = !matches!(error, AdminError::Connect(_) | AdminError::Unaskable(_));
            (Err(error.to_string()), is_there)
        }
    }
}
