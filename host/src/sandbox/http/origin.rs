//! [`Origin`]: where requests may go, as a scheme, a host and a port; never compared as text.

use std::fmt;
use std::net::IpAddr;

use url::{Host, Url};

use super::address;

/// One place that is granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    target: Target,
    /// Whether its addresses may be ones that the internet does not reach.
    private: bool,
}

/// One place that a request goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) is_tls: bool,
    pub(super) host: Host,
    pub(super) port: u16,
}

impl Origin {
    /// Reads `https://api.example.com`, or `http://10.0.0.5:8080`, with nothing after it. An address
    /// that is written out is granted whatever it is; a name only where it leads to public ones,
    /// unless it is said to be private.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    pub fn parse(text: &str, private: bool) -> Result<Origin, String> {
        let hint = "write for example \"https://api.example.com\"";
        let url = Url::parse(text).map_err(|error| format!("{text:?}: {error}; {hint}"))?;
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(format!(
                "{text:?} names more than an origin, and all of an origin is granted; {hint}"
            ));
        }
        let target = Target::of(&url).ok_or_else(|| format!("{text:?} is no origin; {hint}"))?;
        if url.host_str().is_some_and(|host| host.contains('*')) {
            return Err(format!(
                "{text:?}: no host is granted by a pattern; write each one whole"
            ));
        }
        let is_address = !matches!(target.host, Host::Domain(_));
        Ok(Origin {
            target,
            private: private || is_address,
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.target.fmt(f)
    }
}

impl Target {
    /// Where a URL leads. None: nowhere, by another scheme, or as somebody.
    pub(super) fn of(url: &Url) -> Option<Target> {
        let is_tls = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        if !url.username().is_empty() || url.password().is_some() {
            return None;
        }
        Some(Target {
            is_tls,
            host: url.host()?.to_owned(),
            port: url.port_or_known_default()?,
        })
    }

    /// What is granted of it, in the grants. None: nothing.
    pub(super) fn granted_by(&self, origins: &[Origin]) -> Option<Granted> {
        let mut granted = None;
        for origin in origins.iter().filter(|origin| origin.target == *self) {
            if origin.private {
                return Some(Granted::AnyAddress);
            }
            granted = Some(Granted::PublicAddresses);
        }
        granted
    }

    /// What the header `host` says.
    pub(super) fn authority(&self) -> String {
        let usual = if self.is_tls { 443 } else { 80 };
        if self.port == usual {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

/// Which addresses of a granted host may be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Granted {
    PublicAddresses,
    AnyAddress,
}

impl Granted {
    pub(super) fn allows(self, address: IpAddr) -> bool {
        match self {
            Granted::AnyAddress => true,
            Granted::PublicAddresses => address::is_public(address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        Target::of(&Url::parse(text).unwrap()).unwrap()
    }

    #[test]
    fn an_origin_grants_itself_and_nothing_that_looks_like_it() {
        let granted = [Origin::parse("https://api.example.com", false).unwrap()];
        for same in [
            "https://api.example.com",
            "https://API.example.COM:443/a?b",
            "https://api%2eexample.com/",
        ] {
            assert!(target(same).granted_by(&granted).is_some(), "{same}");
        }
        for other in [
            "http://api.example.com",
            "https://api.example.com:8443",
            "https://api.example.com.evil.net",
            "https://evil-api.example.com",
            "https://example.com",
            "https://api.example.com./",
        ] {
            assert_eq!(target(other).granted_by(&granted), None, "{other}");
        }
    }

    #[test]
    fn an_address_that_is_written_out_is_granted_in_every_notation() {
        let granted = [Origin::parse("http://127.0.0.1:8080", false).unwrap()];
        for same in [
            "http://127.0.0.1:8080",
            "http://2130706433:8080",
            "http://0x7f.1:8080",
            "http://0177.0.0.1:8080",
        ] {
            let found = target(same).granted_by(&granted);
            assert_eq!(found, Some(Granted::AnyAddress), "{same}");
        }
        assert_eq!(target("http://127.0.0.2:8080").granted_by(&granted), None);
        assert_eq!(target("http://localhost:8080").granted_by(&granted), None);
    }

    #[test]
    fn a_name_reaches_private_addresses_only_if_it_is_said_to() {
        let name = "http://db.internal";
        for (private, expected) in [
            (false, Granted::PublicAddresses),
            (true, Granted::AnyAddress),
        ] {
            let granted = [Origin::parse(name, private).unwrap()];
            assert_eq!(target(name).granted_by(&granted), Some(expected));
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in [
            "api.example.com",
            "ftp://example.com",
            "https://",
            "https://me@example.com",
            "https://example.com/v1",
            "https://example.com?x",
            "https://*.example.com",
            "",
        ] {
            assert!(Origin::parse(text, false).is_err(), "{text}");
        }
    }
}
