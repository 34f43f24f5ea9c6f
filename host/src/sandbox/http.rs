//! The import `wasi:http`: outgoing requests, each of which is looked at before anything is sent.
//!
//! It is linked for every plugin, because some toolchains build none that can do without, and what it
//! grants is decided request by request: a redirect is the guest's next request.

mod address;
mod exchange;
mod network;
mod origin;

use std::sync::Arc;

use http::{Method, Request, Response};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use url::Url;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use self::exchange::{Bounds, CONNECT, exchange};
pub(super) use self::network::Network;
use self::network::NotConnected;
pub use self::origin::Origin;
use self::origin::{Granted, Target};
use super::breach::Breach;
use super::grants::Grants;
use super::limits::Limits;
use super::voice::Voice;
use crate::event::Level;
use crate::outcome::Limit;

/// Connections that a run may have at once; more requests wait.
const HTTP_CONNECTIONS: usize = 16;

/// What stands between a guest's requests and the network.
pub(super) struct Outgoing {
    voice: Arc<Voice>,
    grants: Arc<Grants>,
    network: Arc<Network>,
    limits: Limits,
    breach: Breach,
    sent: u32,
    connections: Arc<Semaphore>,
}

type Rest = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Result<(Response<WasiBody>, Rest), Error>;

impl Outgoing {
    /// Lets through what is granted, and says through the voice what it refuses.
    pub(super) fn new(
        voice: &Arc<Voice>,
        grants: &Arc<Grants>,
        network: &Arc<Network>,
        limits: &Limits,
        breach: &Breach,
    ) -> Outgoing {
        Outgoing {
            voice: Arc::clone(voice),
            grants: Arc::clone(grants),
            network: Arc::clone(network),
            limits: *limits,
            breach: breach.clone(),
            sent: 0,
            connections: Arc::new(Semaphore::new(HTTP_CONNECTIONS)),
        }
    }

    /// Where a request goes, if it may go there.
    fn admit(&mut self, request: &Request<WasiBody>) -> Result<(Target, Granted), Error> {
        // The authority of such a request is whatever the server makes of it.
        if request.method() == Method::CONNECT {
            return Err(Error::HttpRequestMethodInvalid);
        }
        let target = Url::parse(&request.uri().to_string())
            .ok()
            .and_then(|url| Target::of(&url))
            .ok_or(Error::HttpRequestUriInvalid)?;
        let Some(granted) = target.granted_by(&self.grants.origins) else {
            refuse(
                &self.voice,
                &format!("request to {target} refused: it is not granted"),
                &if self.grants.origins.is_empty() {
                    format!("[http] allow = [\"{target}\"]")
                } else {
                    format!("\"{target}\" among http.allow")
                },
            );
            return Err(Error::HttpRequestDenied);
        };
        if self.sent == self.limits.http_requests {
            self.breach.report(Limit::HttpRequests);
            return Err(Error::ConnectionLimitReached);
        }
        self.sent += 1;
        Ok((target, granted))
    }
}

/// Says what was refused, and what would grant it.
fn refuse(voice: &Voice, what: &str, lines: &str) {
    let plugin = voice.plugin();
    let said = format!("{what}; to grant it, write in {plugin}.toml: {lines}");
    voice.line(Level::Warn, &said, &[]);
}

impl WasiHttpHooks for Outgoing {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Rest,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let (target, granted) = match self.admit(&request) {
            Ok(admitted) => admitted,
            Err(error) => return Box::new(std::future::ready(Err(error))),
        };
        let options = options.unwrap_or_default();
        let network = Arc::clone(&self.network);
        let voice = Arc::clone(&self.voice);
        let connections = Arc::clone(&self.connections);
        let bounds = Bounds {
            body: self.limits.http_body,
            breach: self.breach.clone(),
            until: Instant::now() + self.limits.http_timeout,
        };
        Box::new(async move {
            let connecting = async {
                let permit = connections
                    .acquire_owned()
                    .await
                    .expect("nobody closes the semaphore");
                let connection = network.connect(&target, granted).await;
                connection.map(|connection| (permit, connection))
            };
            let (permit, connection) = timeout(
                bounds.left_of(options.connect_timeout.unwrap_or(CONNECT)),
                connecting,
            )
            .await
            .map_err(|_| Error::ConnectionTimeout)?
            .map_err(|error| not_connected(&voice, &target, error))?;
            let (response, rest) = exchange(connection, &target, request, options, bounds).await?;
            let rest: Rest = Box::new(async move {
                let ended = rest.await;
                drop(permit);
                ended
            });
            Ok((response, rest))
        })
    }
}

fn not_connected(voice: &Voice, target: &Target, error: NotConnected) -> Error {
    match error {
        NotConnected::Prohibited(address) => {
            refuse(
                voice,
                &format!("request to {target} refused: {address} is not a public address"),
                &format!("{{ origin = \"{target}\", private = true }} among http.allow"),
            );
            Error::DestinationIpProhibited
        }
        NotConnected::Failed(error) => {
            // A guest is told little of it by its own library.
            let said = format!("request to {target} failed: {error}");
            voice.line(Level::Warn, &said, &[]);
            error
        }
    }
}
