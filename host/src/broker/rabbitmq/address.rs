//! [`Address`]: one broker's URL, checked and normalised; it is shown without its password.

use std::fmt;
use std::time::Duration;

use lapin::uri::{AMQPScheme, AMQPUri};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Seconds between heartbeats where the URL does not say. A dead peer is noticed at twice that.
const HEARTBEAT: u16 = 15;

/// How long a probe waits to be let in.
const LISTENS: Duration = Duration::from_secs(2);

/// Where a broker is and who we are there.
#[derive(Clone)]
pub(super) struct Address(AMQPUri);

impl Address {
    /// Reads a URL; `user` and `password` go before what it says.
    ///
    /// `amqp://host` and `amqp://host/` both mean the virtual host `/`, as in RabbitMQ's tutorials.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub(super) fn parse(
        url: &str,
        user: Option<&str>,
        password: Option<&str>,
    ) -> Result<Self, String> {
        let shown = without_secret(url);
        let broken = |why: &str| {
            format!("broker URL `{shown}` {why}; write amqp://USER:PASSWORD@HOST:PORT/VHOST")
        };
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| broken("has no scheme"))?;
        if !matches!(scheme, "amqp" | "amqps") {
            return Err(broken("has a scheme other than amqp and amqps"));
        }
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host);
        if host.is_empty() || host.starts_with(':') {
            return Err(broken("names no host"));
        }
        let mut uri: AMQPUri = url
            .parse()
            .map_err(|error| broken(&format!("cannot be read ({error})")))?;
        // The parser takes an IPv6 literal for no host at all and goes to localhost.
        if let Some((literal, _)) = host.strip_prefix('[').and_then(|host| host.split_once(']')) {
            literal.clone_into(&mut uri.authority.host);
        }
        if uri.vhost.is_empty() {
            "/".clone_into(&mut uri.vhost);
        }
        if let Some(user) = user {
            user.clone_into(&mut uri.authority.userinfo.username);
        }
        if let Some(password) = password {
            password.clone_into(&mut uri.authority.userinfo.password);
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        Ok(Address(uri))
    }

    /// The same with heartbeats this far apart, whatever the URL says. The broker may want them closer
    /// together, and then has them.
    pub(super) fn with_heartbeat(mut self, heartbeat: Duration) -> Result<Self, String> {
        let seconds = u16::try_from(heartbeat.as_secs())
            .ok()
            .filter(|seconds| *seconds > 0 && heartbeat.subsec_nanos() == 0)
            .ok_or("a heartbeat is whole seconds, from 1s to 18h; set rabbitmq.heartbeat so")?;
        self.0.query.heartbeat = Some(seconds);
        Ok(self)
    }

    pub(super) fn user(&self) -> &str {
        &self.0.authority.userinfo.username
    }

    pub(super) fn vhost(&self) -> &str {
        &self.0.vhost
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.0.scheme == AMQPScheme::AMQPS
    }

    /// Whether anybody listens there.
    pub(super) async fn takes_connections(&self) -> bool {
        let authority = &self.0.authority;
        let connecting = TcpStream::connect((authority.host.as_str(), authority.port));
        matches!(timeout(LISTENS, connecting).await, Ok(Ok(_)))
    }

    /// What the client library connects with; it holds the password.
    pub(super) fn uri(&self) -> AMQPUri {
        self.0.clone()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = &self.0.authority;
        write!(f, "{}://", self.0.scheme)?;
        if authority.userinfo.username != "guest" {
            write!(f, "{}@", authority.userinfo.username)?;
        }
        if authority.host.contains(':') {
            write!(f, "[{}]:{}", authority.host, authority.port)?;
        } else {
            write!(f, "{}:{}", authority.host, authority.port)?;
        }
        if self.0.vhost != "/" {
            write!(f, "/{}", self.0.vhost)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

/// A URL that may be no URL, without what may be a password in it.
fn without_secret(url: &str) -> String {
    match url.rsplit_once('@') {
        None => url.to_owned(),
        Some((before, host)) => match before.split_once("://") {
            None => format!("...@{host}"),
            Some((scheme, _)) => format!("{scheme}://...@{host}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Address, String> {
        Address::parse(url, None, None)
    }

    #[test]
    fn no_path_and_an_empty_path_mean_the_default_virtual_host() {
        for (url, vhost) in [
            ("amqp://h", "/"),
            ("amqp://h/", "/"),
            ("amqp://h/%2f", "/"),
            ("amqp://h/jobs", "jobs"),
        ] {
            assert_eq!(parse(url).unwrap().vhost(), vhost, "{url}");
        }
    }

    #[test]
    fn an_ipv6_literal_is_the_host() {
        let address = parse("amqps://u:p@[::1]:5999/").unwrap();
        assert_eq!(address.uri().authority.host, "::1");
        assert_eq!(address.to_string(), "amqps://u@[::1]:5999");
    }

    #[test]
    fn a_heartbeat_is_the_settings_or_the_urls_or_the_default_and_whole_seconds() {
        let seconds = |address: &Address| address.uri().query.heartbeat;
        let plain = parse("amqp://h").unwrap();
        assert_eq!(seconds(&plain), Some(HEARTBEAT));
        let told = parse("amqp://h?heartbeat=7").unwrap();
        assert_eq!(seconds(&told), Some(7));
        let set = told.with_heartbeat(Duration::from_secs(3)).unwrap();
        assert_eq!(seconds(&set), Some(3));
        for wrong in [0, 1500, 70_000_000] {
            let error = set.clone().with_heartbeat(Duration::from_millis(wrong));
            assert!(error.unwrap_err().contains("whole seconds"));
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let address = parse("amqp://user:secret@h:5673/jobs").unwrap();
        assert_eq!(address.to_string(), "amqp://user@h:5673/jobs");
        for broken in [
            "http://user:secret@h",
            "amqp://user:secret/more@h:5673/",
            "user:secret@h",
            "amqp://user:secret@h:port",
        ] {
            let error = parse(broken).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
            assert!(error.contains("write amqp://"), "{error}");
        }
    }

    #[test]
    fn a_user_and_password_from_elsewhere_go_first() {
        let address = Address::parse("amqp://a:b@h", Some("c"), Some("d")).unwrap();
        let info = address.uri().authority.userinfo;
        assert_eq!((info.username.as_str(), info.password.as_str()), ("c", "d"));
    }
}
