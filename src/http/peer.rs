//! The network address that a request comes from, directly or through trusted proxies.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::http::HeaderMap;
use axum::http::request::Parts;

use super::input::Input;
use crate::config::Cidr;

/// The header to which each proxy appends the address that its request came from.
const FORWARDED_FOR: &str = "x-forwarded-for";
/// The first bits of an IPv6 address, which the provider assigns. A subscriber can choose the other bits.
const IPV6_SUBSCRIBER_BITS: u8 = 64;

/// The connection on which a request arrived.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The remote address of the connection. It belongs to a client or to a proxy.
    pub address: IpAddr,
    /// Counts the unfinished bytes of the connection.
    pub input: Input,
}

impl Peer {
    /// Returns the peer of the request with this head. Without [`super::serve`], as in tests of the router, the peer is
    /// unknown and its address is `0.0.0.0`.
    pub(super) fn of(head: &Parts) -> Self {
        let unknown = || Self { address: Ipv4Addr::UNSPECIFIED.into(), input: Input::default() };
        head.extensions.get().cloned().unwrap_or_else(unknown)
    }
}

/// Returns the address of the client: the rightmost hop that is not a trusted proxy. Hops to the left of it may be
/// forged.
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

/// Returns the address under which a client is counted. All IPv6 addresses that one subscriber can choose give the same
/// result.
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
