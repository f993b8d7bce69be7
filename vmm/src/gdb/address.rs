//! Where a debugger finds the server: `[HOST:]PORT`, the path of a Unix socket, or `none`.
//!
//! Who can connect has the guest in hand, and the protocol knows no password. So a port is one of this host alone; from
//! another, `ssh -L` leads to it. Only the user who runs the machine reaches a Unix socket.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// No server.
    None,
    /// A port of this host. 0 is one that is free.
    Tcp(IpAddr, u16),
    /// A socket of this name.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::None);
        }
        if text.contains('/') {
            return Ok(Self::Unix(text.into()));
        }
        let form = || format!("{text:?} is no [HOST:]PORT, no path with a / in it, and not none");
        let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
        let port = port.parse().map_err(|_| form())?;
        let ip = match host.trim_start_matches('[').trim_end_matches(']') {
            "" | "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            number => number.parse().map_err(|_| form())?,
        };
        if !ip.is_loopback() {
            return Err(format!(
                "{ip} can be reached from other hosts, and whoever connects has the guest in hand; listen at the port \
                 alone, and lead to it by ssh -L"
            ));
        }
        Ok(Self::Tcp(ip, port))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Tcp(IpAddr::V4(ip), port) => write!(f, "{ip}:{port}"),
            Self::Tcp(IpAddr::V6(ip), port) => write!(f, "[{ip}]:{port}"),
            Self::Unix(path) => write!(f, "{path:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_ports_of_this_host_paths_or_none() {
        let tcp = |ip: &str, port| Ok(Address::Tcp(ip.parse().unwrap(), port));
        assert_eq!("1234".parse(), tcp("127.0.0.1", 1234));
        assert_eq!(":1234".parse(), tcp("127.0.0.1", 1234));
        assert_eq!("localhost:0".parse(), tcp("127.0.0.1", 0));
        assert_eq!("127.0.0.9:7".parse(), tcp("127.0.0.9", 7));
        assert_eq!("[::1]:7".parse(), tcp("::1", 7));
        assert_eq!("./gdb".parse(), Ok(Address::Unix("./gdb".into())));
        assert_eq!("none".parse(), Ok(Address::None));
        for (bad, why) in [
            ("", "is no [HOST:]PORT"),
            ("65536", "is no [HOST:]PORT"),
            ("gdb", "is no [HOST:]PORT"),
            ("example.org:1", "is no [HOST:]PORT"),
            ("0.0.0.0:1234", "from other hosts"),
            ("192.0.2.1:1234", "from other hosts"),
            ("[::]:1234", "from other hosts"),
        ] {
            assert!(bad.parse::<Address>().unwrap_err().contains(why), "{bad}");
        }
    }
}
