//! The import `wasi:http`: outgoing requests, every one of which is refused.
//!
//! It is linked for every plugin, because some toolchains build none that can do without, and what it
//! grants is decided request by request.

use std::sync::Arc;

use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::voice::Voice;
use crate::event::Level;

/// What stands between a guest's requests and the network.
pub(super) struct Outgoing {
    voice: Arc<Voice>,
}

type Sent = Result<
    (
        http::Response<WasiBody>,
        Box<dyn Future<Output = Result<(), Error>> + Send>,
    ),
    Error,
>;

impl Outgoing {
    /// Says what it refuses through this voice.
    pub(super) fn new(voice: &Arc<Voice>) -> Outgoing {
        Outgoing {
            voice: Arc::clone(voice),
        }
    }
}

impl WasiHttpHooks for Outgoing {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let refused = format!(
            "request to {} refused: plugin `{}` is granted no outgoing requests",
            request.uri(),
            self.voice.task().plugin,
        );
        self.voice.line(Level::Warn, &refused, &[]);
        Box::new(std::future::ready(Err(Error::HttpRequestDenied)))
    }
}
