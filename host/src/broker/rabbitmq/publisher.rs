//! [`Publisher`]: the publishing connection, made again for ever when it breaks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lapin::BasicProperties;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::connection::{Connector, Events, over};
use super::outlet::{Destination, NotPublished, Outlet, Patience};
use super::pace::Pace;
use super::stop::{Stop, Switch, switch};
use crate::broker::{BrokerError, Notice, NoticeSink};
use crate::units::show_duration;

const PURPOSE: &str = "publishing";

/// How long to wait for a connection that is being made again.
const RECONNECTED: Duration = Duration::from_secs(10);

/// Publishes on whichever connection there is at the time.
pub(super) struct Publisher {
    connector: Arc<Connector>,
    state: watch::Receiver<State>,
    stop: Switch,
}

#[derive(Clone)]
enum State {
    Up(Arc<Outlet>),
    Down(String),
}

impl Publisher {
    /// Connects, and starts the loop that connects again.
    pub(super) async fn start(
        connector: Arc<Connector>,
        notices: NoticeSink,
    ) -> Result<(Self, JoinHandle<()>), BrokerError> {
        let first = open(&connector).await?;
        let (state, receiver) = watch::channel(State::Up(first.0.clone()));
        let (stop, stopped) = switch();
        let supervised = supervise(connector.clone(), notices, first, state, stopped);
        let publisher = Publisher {
            connector,
            state: receiver,
            stop,
        };
        Ok((publisher, tokio::spawn(supervised)))
    }

    /// The connection, waited for while it is being made again.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn outlet(&self) -> Result<Arc<Outlet>, String> {
        let mut state = self.state.clone();
        let up = state.wait_for(|state| matches!(state, State::Up(_)));
        match tokio::time::timeout(RECONNECTED, up).await {
            Ok(Ok(state)) => match &*state {
                State::Up(outlet) => return Ok(outlet.clone()),
                State::Down(why) => return Err(why.clone()),
            },
            Ok(Err(_)) => return Err("the connection was closed".to_owned()),
            Err(_) => {}
        }
        Err(match &*self.state.borrow() {
            State::Up(_) => "the connection keeps breaking".to_owned(),
            State::Down(why) => why.clone(),
        })
    }

    /// [`Outlet::publish`] on the connection of the time.
    pub(super) async fn publish(
        &self,
        to: Destination<'_>,
        properties: BasicProperties,
        body: &Bytes,
        patience: Patience,
    ) -> Result<(), NotPublished> {
        match self.outlet().await {
            Ok(outlet) => outlet.publish(to, properties, body, patience).await,
            Err(text) => Err(NotPublished::Trouble(super::connection::Trouble {
                code: None,
                text,
            })),
        }
    }

    /// [`Outlet::publish`] on a connection of its own, which nobody else loses if it breaks.
    pub(super) async fn publish_alone(
        &self,
        to: Destination<'_>,
        properties: BasicProperties,
        body: &Bytes,
    ) -> Result<(), NotPublished> {
        let opened = open(&self.connector).await;
        let (outlet, _events) = opened.map_err(|error| {
            NotPublished::Trouble(super::connection::Trouble {
                code: None,
                text: error.to_string(),
            })
        })?;
        let published = outlet
            .publish(to, properties, body, Patience::Bounded)
            .await;
        outlet.close().await;
        published
    }

    /// Asks the loop to close the connection and end.
    pub(super) fn stop(&self) {
        self.stop.stop();
    }
}

/// Opens a connection that publishes.
pub(super) async fn open(connector: &Connector) -> Result<(Arc<Outlet>, Events), BrokerError> {
    let (link, events) = connector.open(PURPOSE).await?;
    let outlet = Outlet::open(link)
        .await
        .map_err(|trouble| trouble.while_doing("cannot open a channel"))?;
    Ok((Arc::new(outlet), events))
}

async fn supervise(
    connector: Arc<Connector>,
    notices: NoticeSink,
    first: (Arc<Outlet>, Events),
    state: watch::Sender<State>,
    mut stopped: Stop,
) {
    let mut pace = Pace::new();
    let mut opened: Result<_, BrokerError> = Ok(first);
    loop {
        let why = match opened {
            Ok((outlet, events)) => {
                state.send_replace(State::Up(outlet.clone()));
                let since = Instant::now();
                let Some(why) = serve(&outlet, events, &notices, &mut stopped).await else {
                    outlet.close().await;
                    return;
                };
                pace.lived(since.elapsed());
                why
            }
            Err(error) => error.to_string(),
        };
        state.send_replace(State::Down(why.clone()));
        let wait = pace.wait();
        notices(Notice::Warning(format!(
            "cannot publish: {why}; trying again within {}",
            show_duration(wait)
        )));
        tokio::select! {
            () = connector.wait(wait, &mut pace) => {}
            () = stopped.asked() => return,
        }
        opened = tokio::select! {
            opened = open(&connector) => opened,
            () = stopped.asked() => return,
        };
    }
}

/// Passes on alarms until the connection breaks, and says why. None: it is to be closed.
async fn serve(
    outlet: &Outlet,
    events: Events,
    notices: &NoticeSink,
    stopped: &mut Stop,
) -> Option<String> {
    tokio::select! {
        why = watch_over(outlet, events, notices) => Some(why),
        () = stopped.asked() => None,
    }
}

/// Passes on alarms until the connection is of no more use, and says why.
pub(super) async fn watch_over(
    outlet: &Outlet,
    mut events: Events,
    notices: &NoticeSink,
) -> String {
    let alarms = |alarm: Option<String>| {
        outlet.set_alarm(alarm.clone());
        notices(match alarm {
            Some(why) => Notice::Blocked(why),
            None => Notice::Unblocked,
        });
    };
    let why = tokio::select! {
        why = over(&mut events, alarms) => why,
        why = outlet.failed() => why,
    };
    outlet.fail(&why);
    if outlet.set_alarm(None).is_some() {
        notices(Notice::Unblocked);
    }
    why
}
