//! What other brokers ask on the listener that is for them alone. Nothing of Kafka's is served
//! there, and none of this anywhere else: a client cannot pass for a replica (CVE-2018-1288).
//!
//! The first request of a connection says who connects; until then nothing else is understood.

use std::rc::Rc;

use super::dispatch::Api;
use crate::cluster::image::MetadataImage;
use crate::net::close_reason::CloseReason;
use crate::net::frame::Frame;
use crate::net::peer::Peer;
use crate::net::service::Reply;
use crate::runtime::gather::Gather;
use crate::shard::peer_protocol::{
    Hello, PeerAnswer, PeerFrame, PeerKind, PeerRequest, ReplicaFetch, ReplicaReport, answer, put,
    put_answers, take,
};

/// The listener for other brokers.
pub const INTER_BROKER_LISTENER: u16 = 1;

/// Serves a request of another broker, or of somebody who is none.
pub(super) async fn serve(api: Rc<Api>, frame: Frame, peer: Peer) -> Reply {
    let Some(asked) = PeerFrame::decode(&frame) else {
        return refused();
    };
    let from = node_of(&peer);
    let correlation = asked.correlation;
    match (asked.kind, from) {
        (PeerKind::Call, from) => {
            let Some(request) = take::<PeerRequest>(asked.body) else {
                return refused();
            };
            drop(frame);
            let answered = match (request, from) {
                (PeerRequest::Hello(hello), _) => Some(welcome(&api, &peer, &hello)),
                (request, Some(_)) => call(&api, request).await,
                _ => None,
            };
            let Some(answered) = answered else {
                return refused();
            };
            let bytes = answer(correlation, 0, |into| put(into, &answered));
            Reply::Send(Gather::owned(bytes))
        }
        (PeerKind::Quorum, Some(from)) => {
            api.router.quorum_message(from, asked.body.to_vec());
            Reply::Nothing
        }
        (PeerKind::Fetch, Some(from)) => {
            let Ok(fetch) = ReplicaFetch::decode(asked.body) else {
                return refused();
            };
            drop(frame);
            replica_fetch(&api, from, correlation, fetch).await
        }
        (PeerKind::Report, Some(from)) => {
            let Ok(report) = ReplicaReport::decode(asked.body) else {
                return refused();
            };
            api.router.replica_report(from, report);
            Reply::Nothing
        }
        (_, None) => refused(),
    }
}

fn refused() -> Reply {
    Reply::Close(CloseReason::InvalidRequest)
}

/// The node that introduced itself on this connection.
fn node_of(peer: &Peer) -> Option<i32> {
    peer.principal()?.parse().ok()
}

fn welcome(api: &Api, peer: &Peer, hello: &Hello) -> PeerAnswer {
    let image = api.router.image();
    let own = api.router.peers().identity();
    let stranger = if hello.cluster_id != own.cluster_id {
        Some(format!(
            "this is cluster {}, not {}",
            own.cluster_id, hello.cluster_id
        ))
    } else if hello.to != own.node_id {
        Some(format!("this is node {}, not {}", own.node_id, hello.to))
    } else if hello.node_id == own.node_id {
        Some(format!(
            "this is node {} itself: node.id is given twice",
            own.node_id
        ))
    } else if has_another_disk(&image, hello) {
        Some(format!(
            "node {} is registered with another data directory: what it promised there is gone, and \
             it may not vote again as the same node; if its disk was replaced, let the cluster \
             forget the old one first: percolog cluster remove {0}",
            hello.node_id
        ))
    } else {
        None
    };
    if let Some(why) = stranger {
        tracing::warn!(from = %peer.address(), why, "a broker is not welcome");
        return PeerAnswer::Hello(Err(why));
    }
    let principal: Rc<str> = hello.node_id.to_string().into();
    peer.update_session(|session| session.principal = Some(principal));
    PeerAnswer::Hello(Ok(()))
}

/// Whether the cluster knows the node with another first data directory.
fn has_another_disk(image: &MetadataImage, hello: &Hello) -> bool {
    let known = image.brokers().get(&hello.node_id);
    known.is_some_and(|known| known.directory_id != hello.directory_id)
}

async fn call(api: &Rc<Api>, request: PeerRequest) -> Option<PeerAnswer> {
    let router = &api.router;
    Some(match request {
        PeerRequest::Hello(_) => return None,
        PeerRequest::Control(command) => PeerAnswer::Control(router.decide(command).await),
        PeerRequest::Heartbeat {
            node_id,
            broker_epoch,
        } => PeerAnswer::Heartbeat(router.heartbeat(node_id, broker_epoch).await),
        PeerRequest::WriteMarkers {
            logs,
            marker,
            bumps_epoch,
        } => {
            let written = router.write_markers_that(logs, marker, bumps_epoch);
            PeerAnswer::MarkersWritten(written.await)
        }
        PeerRequest::Transaction(log, request) => {
            PeerAnswer::Transaction(router.ask_transactions_here(log, request).await)
        }
        PeerRequest::Quorum(request) => PeerAnswer::Quorum(router.ask_quorum_here(request).await),
    })
}

async fn replica_fetch(api: &Api, from: i32, correlation: u32, fetch: ReplicaFetch) -> Reply {
    let fetched = api.router.replica_fetch(from, &fetch).await;
    let parts: Vec<_> = fetched.iter().map(|part| part.told).collect();
    let records: usize = parts.iter().map(|part| part.length as usize).sum();
    let head = answer(correlation, records, |into| put_answers(into, &parts));
    let mut gather = Gather::owned(head);
    for part in fetched {
        for slice in part.slices {
            gather.push_slice(slice);
        }
    }
    Reply::Send(gather)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::image::BrokerImage;
    use crate::cluster::record::MetadataRecord;
    use crate::wire::codec::Uuid;

    #[test]
    fn a_node_with_another_disk_is_another_node() {
        let mut image = MetadataImage::empty("c", 1);
        let hello = |disk| Hello {
            cluster_id: "c".to_string(),
            node_id: 2,
            to: 1,
            directory_id: Uuid([disk; 16]),
        };
        assert!(!has_another_disk(&image, &hello(1)), "nobody knows it");
        image.apply(&MetadataRecord::BrokerRegistered {
            node_id: 2,
            broker: BrokerImage {
                directory_id: Uuid([1; 16]),
                ..BrokerImage::default()
            },
        });
        assert!(!has_another_disk(&image, &hello(1)));
        assert!(has_another_disk(&image, &hello(2)));
    }
}
