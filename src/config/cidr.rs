//! CIDR blocks: sets of IP addresses that share a prefix.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// All addresses with the same first bits, such as 10.0.0.0/8. IPv4 and IPv6 addresses never match each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    bits: u8,
}

/// The text is not a CIDR block.
#[derive(Debug, thiserror::Error)]
#[error("not a CIDR block")]
pub struct NoCidr;

impl FromStr for Cidr {
    type Err = NoCidr;

    /// Parses `ADDRESS/BITS`, or a single address. Bits of the address after the first `BITS` are ignored.
    fn from_str(text: &str) -> Result<Self, NoCidr> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| NoCidr)?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(all), str::parse).map_err(|_| NoCidr)?;
        if bits > all {
            return Err(NoCidr);
        }
        Ok(Self::new(address, bits))
    }
}

impl Cidr {
    /// The block of all addresses whose first `bits` bits are those of `address`.
    pub fn new(address: IpAddr, bits: u8) -> Self {
        Self { address: network(address, bits), bits }
    }

    /// The first address of the block.
    pub fn address(self) -> IpAddr {
        self.address
    }

    pub fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && network(address, self.bits) == self.address
    }
}

/// The address with all bits after the first `bits` set to 0.
fn network(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn blocks_contain_what_begins_alike() {
        for (block, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.1.2.3/8", "10.0.0.0", "::ffff:10.0.0.0"),
            ("192.168.7.1", "192.168.7.1", "192.168.7.2"),
            ("172.16.0.0/12", "172.31.9.9", "172.32.0.0"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::1", "::1", "::2"),
        ] {
            let block: Cidr = block.parse().unwrap();
            assert!(block.contains(address(inside)) && !block.contains(address(outside)), "{block:?}");
        }
        assert!("0.0.0.0/0".parse::<Cidr>().unwrap().contains(address("255.255.255.255")));
        assert!("::/0".parse::<Cidr>().unwrap().contains(address("ffff::")));
        for wrong in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "10.0.0.0/-1", "proxy", "10.0.0.0/8/8"] {
            assert!(wrong.parse::<Cidr>().is_err(), "{wrong}");
        }
    }
}
