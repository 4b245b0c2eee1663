//! Where a request comes from.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::http::HeaderMap;
use axum::http::request::Parts;

use super::input::Input;
use crate::config::Cidr;

/// Each proxy adds whom it was asked by.
const FORWARDED_FOR: &str = "x-forwarded-for";
/// Bits of an IPv6 address that one subscriber of a provider cannot choose.
const IPV6_SUBSCRIBER_BITS: u8 = 64;

/// The connection that a request came on.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The other side of the connection: a client, or a proxy.
    pub address: IpAddr,
    /// What it has begun to send.
    pub input: Input,
}

impl Peer {
    /// Of the request with this head. A router that is not served by [`super::serve`] knows no peers.
    pub(super) fn of(head: &Parts) -> Self {
        let unknown = || Self { address: Ipv4Addr::UNSPECIFIED.into(), input: Input::default() };
        head.extensions.get().cloned().unwrap_or_else(unknown)
    }
}

/// The client's address: the rightmost hop that is no trusted proxy. What stands left of it may be made up.
pub(super) fn client(trusted: &[Cidr], peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let values = headers.get_all(FORWARDED_FOR).iter().map(|value| value.to_str().unwrap_or_default());
    let hops: Vec<&str> = values.flat_map(|value| value.split(',')).collect();
    let mut client = peer.to_canonical();
    for hop in hops.into_iter().rev() {
        if !trusted.iter().any(|proxies| proxies.contains(client)) {
            break;
        }
        let hop = hop.trim();
        let address = hop.parse().or_else(|_| hop.parse().map(|address: SocketAddr| address.ip()));
        let Ok(address) = address else { break };
        client = address.to_canonical();
    }
    client
}

/// Addresses that one client can choose among count as one.
pub(super) fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        address @ IpAddr::V6(_) => Cidr::new(address, IPV6_SUBSCRIBER_BITS).address(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_client_is_the_rightmost_hop_that_is_not_trusted() {
        let trusted: Vec<Cidr> = ["10.0.0.0/8", "::1"].map(|block| block.parse().unwrap()).into();
        for (peer, forwarded, expected) in [
            ("192.0.2.1", &[][..], "192.0.2.1"),
            ("192.0.2.1", &["203.0.113.9"], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("::ffff:10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["198.51.100.7, 203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["198.51.100.7", "203.0.113.9 ,10.9.9.9"], "203.0.113.9"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["198.51.100.7, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &[""], "10.0.0.1"),
            ("::1", &["[2001:db8::5]:443"], "2001:db8::5"),
            ("::1", &["203.0.113.9:443"], "203.0.113.9"),
        ] {
            let mut headers = HeaderMap::new();
            for value in forwarded {
                headers.append(FORWARDED_FOR, value.parse().unwrap());
            }
            assert_eq!(client(&trusted, address(peer), &headers), address(expected), "{peer} {forwarded:?}");
        }
    }

    #[test]
    fn a_subscriber_has_many_addresses() {
        assert_eq!(subscriber(address("2001:db8::1:2:3:4")), subscriber(address("2001:db8::5")));
        assert_ne!(subscriber(address("2001:db8:0:1::1")), subscriber(address("2001:db8:0:2::1")));
        assert_eq!(subscriber(address("::ffff:192.0.2.1")), address("192.0.2.1"));
    }
}
