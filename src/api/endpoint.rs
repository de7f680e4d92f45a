//! Where clients are told to connect.

use crate::cluster::image::MetadataImage;
use crate::config::broker::BrokerConfig;
use crate::net::peer::Peer;

/// A broker for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) node_id: i32,
    pub(super) host: String,
    pub(super) port: i32,
    pub(super) rack: Option<String>,
    pub(super) is_fenced: bool,
}

/// The brokers that clients may connect to: none that is fenced.
pub(super) fn endpoints(
    image: &MetadataImage,
    config: &BrokerConfig,
    peer: &Peer,
) -> Vec<Endpoint> {
    let mut endpoints = all_endpoints(image, config, peer);
    endpoints.retain(|endpoint| !endpoint.is_fenced);
    endpoints
}

/// Every broker of the image, this one first asked for by its configuration: it alone knows how a
/// client reached it.
pub(super) fn all_endpoints(
    image: &MetadataImage,
    config: &BrokerConfig,
    peer: &Peer,
) -> Vec<Endpoint> {
    let own = own(image, config, peer);
    let others = image
        .brokers()
        .iter()
        .filter(|(node_id, _)| **node_id != own.node_id)
        .map(|(node_id, broker)| Endpoint {
            node_id: *node_id,
            host: broker.host.clone(),
            port: i32::from(broker.port),
            rack: broker.rack.clone(),
            is_fenced: broker.is_fenced,
        });
    let mut all: Vec<Endpoint> = others.collect();
    all.push(own);
    all.sort_by_key(|endpoint| endpoint.node_id);
    all
}

/// This broker. Without an advertised address and bound to every interface, the address that the
/// client itself connected to is the one that works for it.
fn own(image: &MetadataImage, config: &BrokerConfig, peer: &Peer) -> Endpoint {
    let address = config.advertised_address();
    let local = peer.local_address();
    let is_everywhere = ["0.0.0.0", "::"].contains(&address.host.as_str());
    let host = if is_everywhere {
        local.ip().to_canonical().to_string()
    } else {
        address.host.clone()
    };
    let port = if address.port == 0 {
        local.port()
    } else {
        address.port
    };
    let node_id = image.node_id();
    let registered = image.brokers().get(&node_id);
    Endpoint {
        node_id,
        host,
        port: i32::from(port),
        rack: config.node.rack.clone(),
        is_fenced: registered.is_some_and(|broker| broker.is_fenced),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::image::BrokerImage;
    use crate::cluster::record::MetadataRecord;
    use crate::config::kind::Address;
    use core::net::SocketAddr;

    fn peer(local: &str) -> Peer {
        let local: SocketAddr = local.parse().unwrap();
        Peer::new(SocketAddr::from(([10, 0, 0, 9], 5)), local, 1, 0, 100)
    }

    fn told(listener: &str, advertised: Option<&str>, local: &str) -> (String, i32) {
        let mut config = BrokerConfig::defaults();
        config.listeners.client = Address::parse(listener).unwrap();
        config.listeners.advertised = advertised.map(|text| Address::parse(text).unwrap());
        let image = MetadataImage::empty("c", 1);
        let endpoint = endpoints(&image, &config, &peer(local)).remove(0);
        (endpoint.host, endpoint.port)
    }

    #[test]
    fn a_listener_on_every_interface_is_where_the_client_found_it() {
        for listener in ["0.0.0.0:9092", "[::]:9092"] {
            assert_eq!(
                told(listener, None, "10.0.0.1:9092"),
                ("10.0.0.1".to_string(), 9092)
            );
        }
        let mapped = told("[::]:0", None, "[::ffff:10.0.0.1]:4444");
        assert_eq!(mapped, ("10.0.0.1".to_string(), 4444));
        assert_eq!(told("h:1", None, "10.0.0.1:1"), ("h".to_string(), 1));
        assert_eq!(
            told("0.0.0.0:1", Some("name:2"), "10.0.0.1:1"),
            ("name".to_string(), 2)
        );
    }

    #[test]
    fn other_brokers_are_where_they_registered() {
        let mut image = MetadataImage::empty("c", 2);
        for node_id in [1, 2, 3] {
            image.apply(&MetadataRecord::BrokerRegistered {
                node_id,
                broker: BrokerImage {
                    host: format!("h{node_id}"),
                    port: 7,
                    is_fenced: node_id == 3,
                    ..BrokerImage::default()
                },
            });
        }
        let all = endpoints(&image, &BrokerConfig::defaults(), &peer("127.0.0.1:9092"));
        let hosts: Vec<_> = all.iter().map(|endpoint| endpoint.host.as_str()).collect();
        assert_eq!(hosts, ["h1", "127.0.0.1"]);
        let all = all_endpoints(&image, &BrokerConfig::defaults(), &peer("127.0.0.1:9092"));
        let fenced: Vec<_> = all.iter().map(|endpoint| endpoint.is_fenced).collect();
        assert_eq!(fenced, [false, false, true]);
    }
}
