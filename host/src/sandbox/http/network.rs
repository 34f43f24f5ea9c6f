//! [`Network`]: connections to granted places, made to the very address that was checked.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use url::Host;
use wasmtime_wasi_http::Error;

use super::origin::{Granted, Target};

/// Finds the addresses of a name.
pub(super) type Resolve = fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;

/// How a host reaches others. Nothing is kept between requests but what certificates are trusted.
pub(in crate::sandbox) struct Network {
    resolve: Resolve,
    tls: OnceCell<TlsConnector>,
}

/// A connection, encrypted or not.
pub(super) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum NotConnected {
    /// The name leads to an address that is not granted.
    Prohibited(IpAddr),
    Failed(Error),
}

impl Default for Network {
    fn default() -> Self {
        Network::resolving(|host, port| {
            Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
        })
    }
}

impl Network {
    pub(super) fn resolving(resolve: Resolve) -> Network {
        Network {
            resolve,
            tls: OnceCell::new(),
        }
    }

    /// Connects, and encrypts where the target asks for it.
    pub(super) async fn connect(
        &self,
        target: &Target,
        granted: Granted,
    ) -> Result<Box<dyn Connection>, NotConnected> {
        let addresses = self.addresses(target, granted).await?;
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // It spares small requests a wait; where it fails they wait.
                    let _ = stream.set_nodelay(true);
                    return self.encrypted(target, stream).await;
                }
                Err(error) => last = error,
            }
        }
        Err(NotConnected::Failed(match last.kind() {
            io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
            io::ErrorKind::NotFound => Error::DestinationNotFound,
            _ => Error::Connect(last),
        }))
    }

    /// The target's addresses. One that is not granted spoils them all: whoever answers for the name
    /// cannot be trusted with it.
    async fn addresses(
        &self,
        target: &Target,
        granted: Granted,
    ) -> Result<Vec<SocketAddr>, NotConnected> {
        let addresses = match &target.host {
            Host::Ipv4(address) => vec![SocketAddr::new((*address).into(), target.port)],
            Host::Ipv6(address) => vec![SocketAddr::new((*address).into(), target.port)],
            Host::Domain(name) => {
                (self.resolve)(name.clone(), target.port)
                    .await
                    .map_err(|_| {
                        NotConnected::Failed(Error::DnsError {
                            rcode: None,
                            info_code: None,
                        })
                    })?
            }
        };
        match addresses
            .iter()
            .find(|address| !granted.allows(address.ip()))
        {
            Some(address) => Err(NotConnected::Prohibited(address.ip())),
            None => Ok(addresses),
        }
    }

    async fn encrypted(
        &self,
        target: &Target,
        stream: TcpStream,
    ) -> Result<Box<dyn Connection>, NotConnected> {
        if !target.is_tls {
            return Ok(Box::new(stream));
        }
        let name = match &target.host {
            Host::Ipv4(address) => ServerName::from(IpAddr::from(*address)),
            Host::Ipv6(address) => ServerName::from(IpAddr::from(*address)),
            Host::Domain(name) => ServerName::try_from(name.clone())
                .map_err(|_| NotConnected::Failed(Error::HttpRequestUriInvalid))?,
        };
        let tls = self
            .tls
            .get_or_try_init(connector)
            .await
            .map_err(|error| NotConnected::Failed(Error::InternalError(Some(error))))?;
        let stream = tls
            .connect(name, stream)
            .await
            .map_err(|error| NotConnected::Failed(Error::Tls(error)))?;
        Ok(Box::new(stream))
    }
}

/// Trusts what the system trusts, or what `SSL_CERT_FILE` and `SSL_CERT_DIR` say.
async fn connector() -> Result<TlsConnector, String> {
    let loaded = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs)
        .await
        .map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    // A certificate that cannot be read is one that nobody is trusted by.
    let _ = roots.add_parsable_certificates(loaded.certs);
    if roots.is_empty() {
        return Err(
            "no certificates are trusted on this host; install ca-certificates, or set SSL_CERT_FILE"
                .to_owned(),
        );
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_leads_where_nothing_is_granted_is_not_connected_to() {
        let answers: [(Resolve, &str); 3] = [
            (|_, port| answer("169.254.169.254", port), "169.254.169.254"),
            (
                |_, port| answer("::ffff:127.0.0.1", port),
                "::ffff:127.0.0.1",
            ),
            // One public address does not make up for it.
            (
                |_, port| {
                    Box::pin(async move {
                        Ok(vec![
                            SocketAddr::new([192, 0, 1, 1].into(), port),
                            SocketAddr::new([10, 0, 0, 1].into(), port),
                        ])
                    })
                },
                "10.0.0.1",
            ),
        ];
        let target = Target {
            is_tls: false,
            host: Host::Domain("rebound.example.com".into()),
            port: 80,
        };
        for (resolve, expected) in answers {
            let network = Network::resolving(resolve);
            match network.connect(&target, Granted::PublicAddresses).await {
                Err(NotConnected::Prohibited(address)) => {
                    assert_eq!(address, expected.parse::<IpAddr>().unwrap());
                }
                Err(NotConnected::Failed(error)) => panic!("{error}"),
                Ok(_) => panic!("connected to {expected}"),
            }
        }
    }

    fn answer(address: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let address = SocketAddr::new(address.parse().unwrap(), port);
        Box::pin(async move { Ok(vec![address]) })
    }

    #[tokio::test]
    async fn a_connection_goes_to_the_address_that_was_checked() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target {
            is_tls: false,
            host: Host::Domain("db.internal".into()),
            port: listener.local_addr().unwrap().port(),
        };
        let network = Network::resolving(|_, port| answer("127.0.0.1", port));
        let connected = network.connect(&target, Granted::AnyAddress).await;
        assert!(connected.is_ok());
        listener.accept().await.unwrap();
    }
}
