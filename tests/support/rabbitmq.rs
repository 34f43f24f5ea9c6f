//! [`Node`]: a private RabbitMQ that a test may kill, and the shared one that it may not.

mod cluster;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub(crate) use self::cluster::Cluster;

/// The node that `tests/run` starts for all tests. Each uses queue names of its own.
pub(crate) fn shared_url() -> String {
    named_url("SCUTWORK_TEST_AMQP")
}

/// The same, of version 4.
pub(crate) fn shared_url_of_4() -> String {
    named_url("SCUTWORK_TEST_AMQP_4")
}

fn named_url(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("NOT RUN: {variable} names no broker; use tests/run"))
}

/// The version that a broker gives in its greeting, such as `4.0.5`.
pub(crate) fn version(url: &str) -> String {
    let address = url.rsplit(['/', '@']).next().unwrap();
    let mut socket = TcpStream::connect(address).unwrap();
    socket.write_all(b"AMQP\0\0\x09\x01").unwrap();
    // A frame's header: type, channel, size.
    let mut header = [0; 7];
    socket.read_exact(&mut header).unwrap();
    let size = u32::from_be_bytes(header[3..].try_into().unwrap());
    let mut properties = vec![0; size.try_into().unwrap()];
    socket.read_exact(&mut properties).unwrap();
    // A key with its length before it, then a long string.
    let key = b"\x07versionS";
    let at = properties
        .windows(key.len())
        .position(|window| window == key)
        .expect("a greeting names the version");
    let (length, text) = properties[at + key.len()..].split_at(4);
    let length = u32::from_be_bytes(length.try_into().unwrap());
    String::from_utf8(text[..length.try_into().unwrap()].to_vec()).unwrap()
}

/// A broker of one's own. It ends when it is dropped.
pub(crate) struct Node {
    directory: TempDir,
    port: u16,
    settings: String,
    /// Where another version is installed; none: this machine's own.
    root: Option<String>,
    /// A port that the settings open beside the plain one. A node opens it a moment later.
    also: Option<u16>,
    /// The port of the port mapper that it shares with others. None: it has one of its own.
    mapper: Option<u16>,
    broker: Option<Child>,
}

impl Node {
    /// Starts a node and waits until it takes connections.
    pub(crate) async fn start() -> Node {
        Node::start_with("").await
    }

    /// The same, with more lines for rabbitmq.conf.
    pub(crate) async fn start_with(settings: &str) -> Node {
        let mut node = Node::new(settings);
        node.restart().await;
        node
    }

    /// Starts one of version 4.
    pub(crate) async fn start_4() -> Node {
        let variable = "SCUTWORK_TEST_RABBITMQ_4";
        let root = std::env::var(variable)
            .unwrap_or_else(|_| panic!("NOT RUN: {variable} names no folder; use tests/run"));
        let mut node = Node::new("");
        node.root = Some(root);
        node.restart().await;
        node
    }

    /// The same, for settings that open another port: waits until the node listens there too.
    pub(crate) async fn start_with_port(settings: &str, port: u16) -> Node {
        let mut node = Node::new(settings);
        node.also = Some(port);
        node.restart().await;
        node
    }

    /// Starts one with the management plugin, which listens on the port that comes with it.
    pub(crate) async fn start_with_management() -> (Node, u16) {
        let management = three_free_ports();
        let mut node = Node::new(&format!(
            "management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {management}\n"
        ));
        node.also = Some(management);
        let enabled = node.directory.path().join("enabled_plugins");
        std::fs::write(enabled, "[rabbitmq_management].").unwrap();
        node.restart().await;
        (node, management)
    }

    fn new(settings: &str) -> Node {
        Node {
            directory: TempDir::new().unwrap(),
            port: three_free_ports(),
            settings: settings.to_owned(),
            root: None,
            also: None,
            mapper: None,
            broker: None,
        }
    }

    /// How to reach it.
    pub(crate) fn url(&self) -> String {
        format!("amqp://127.0.0.1:{}", self.port)
    }

    /// What the nodes of its cluster call it.
    pub(crate) fn name(&self) -> String {
        format!("scutwork-{}@localhost", self.port)
    }

    /// Ends it by SIGKILL.
    pub(crate) async fn kill(&mut self) {
        if let Some(mut broker) = self.broker.take() {
            broker.kill().unwrap();
            broker.wait().unwrap();
        }
    }

    /// Ends it by SIGTERM, which it takes a moment to obey.
    pub(crate) async fn stop(&mut self) {
        if let Some(mut broker) = self.broker.take() {
            let id = rustix::process::Pid::from_child(&broker);
            rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
            until("the node ends", || broker.try_wait().unwrap().is_some()).await;
        }
    }

    /// Runs `rabbitmqctl` on it.
    pub(crate) fn control(&self, arguments: &[&str]) -> String {
        let ran = Command::new("/usr/lib/rabbitmq/bin/rabbitmqctl")
            .arg("--node")
            .arg(self.name())
            .args(arguments)
            .env("HOME", self.directory.path())
            .env(
                "ERL_EPMD_PORT",
                self.mapper.unwrap_or(self.port + 1).to_string(),
            )
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{arguments:?}: {said}{complaint}");
        said
    }

    /// Starts it again, on the same data.
    pub(crate) async fn restart(&mut self) {
        self.launch().await;
        self.answers().await;
    }

    async fn answers(&self) {
        until("the node takes connections", || greets(self.port)).await;
        if let Some(port) = self.also {
            let listens = || TcpStream::connect(("127.0.0.1", port)).is_ok();
            until("the node takes connections on its other port", listens).await;
        }
    }

    async fn launch(&mut self) {
        self.stop().await;
        // The port mapper of the last run ends a moment after its broker.
        let ports = [self.port, self.port + 1, self.port + 2];
        until("the node's ports are free", || ports.iter().all(is_free)).await;
        let settings = self.directory.path().join("settings");
        std::fs::write(&settings, &self.settings).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/rabbitmq-node");
        let mut command = Command::new(script);
        command
            .arg(self.directory.path())
            .arg(self.port.to_string())
            .arg(settings)
            .stdin(Stdio::null());
        if let Some(mapper) = self.mapper {
            command.env("SCUTWORK_RABBITMQ_EPMD", mapper.to_string());
        }
        if let Some(root) = &self.root {
            command.env("SCUTWORK_RABBITMQ_ROOT", root);
        }
        self.broker = Some(command.spawn().unwrap());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut broker) = self.broker.take() {
            // It may have ended by itself.
            let _ = broker.kill();
            let _ = broker.wait();
        }
    }
}

/// Waits for what no event tells of, looking often.
async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(90);
    while !done() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// Whether a broker answers AMQP's header on this port.
fn greets(port: u16) -> bool {
    let Ok(mut socket) = TcpStream::connect(("127.0.0.1", port)) else {
        return false;
    };
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let mut first = [0];
    socket.write_all(b"AMQP\0\0\x09\x01").is_ok() && socket.read_exact(&mut first).is_ok()
}

fn is_free(port: &u16) -> bool {
    TcpListener::bind(("127.0.0.1", *port)).is_ok()
}

/// The first of three free ports in a row, below those that the system gives to clients. No two
/// calls give the same ones: what asked first may take a while until it listens.
pub(crate) fn three_free_ports() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap();
    loop {
        let first = fastrand::u16(20_000..32_000);
        let ports = [first, first + 1, first + 2];
        if ports
            .iter()
            .all(|port| !given.contains(port) && is_free(port))
        {
            given.extend(ports);
            return first;
        }
    }
}
