//! [`Cluster`]: nodes that hold the same queues, each of which a test may kill.

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use super::{Node, three_free_ports, until};

/// What lets nodes into each other's cluster.
const COOKIE: &str = "one-cluster-of-a-test";

/// Nodes of one cluster. They end when it is dropped.
pub(crate) struct Cluster {
    nodes: Vec<Node>,
    // After the nodes, which end first.
    _mapper: Option<Mapper>,
}

impl Cluster {
    /// Starts so many nodes and waits until all of them have joined: a queue that is declared earlier
    /// has fewer members.
    pub(crate) async fn start(size: usize) -> Cluster {
        let mapper = Mapper::start().await;
        let ports: Vec<u16> = (0..size).map(|_| three_free_ports()).collect();
        let mut settings =
            String::from("cluster_formation.peer_discovery_backend = classic_config\n");
        for (number, port) in (1..).zip(&ports) {
            settings.push_str(&format!(
                "cluster_formation.classic_config.nodes.{number} = scutwork-{port}@localhost\n"
            ));
        }
        let mut nodes: Vec<Node> = ports
            .into_iter()
            .map(|port| member(port, &settings, mapper.port))
            .collect();
        for node in &mut nodes {
            node.launch().await;
        }
        // A node answers once it has joined.
        for node in &nodes {
            node.answers().await;
        }
        Cluster {
            nodes,
            _mapper: Some(mapper),
        }
    }

    /// A node by itself.
    pub(crate) fn of_one(node: Node) -> Cluster {
        Cluster {
            nodes: vec![node],
            _mapper: None,
        }
    }

    /// How to reach each of them.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Node::url).collect()
    }

    pub(crate) fn nodes(&mut self) -> &mut [Node] {
        &mut self.nodes
    }
}

fn member(port: u16, settings: &str, mapper: u16) -> Node {
    let mut node = Node::new(settings);
    node.port = port;
    node.mapper = Some(mapper);
    let cookie = node.directory.path().join(".erlang.cookie");
    std::fs::write(&cookie, COOKIE).unwrap();
    std::fs::set_permissions(&cookie, PermissionsExt::from_mode(0o400)).unwrap();
    node
}

/// Erlang's port mapper, by which nodes find each other. It ends when it is dropped.
struct Mapper {
    port: u16,
    program: Child,
}

impl Mapper {
    async fn start() -> Mapper {
        let port = three_free_ports();
        // Whichever way this process ends, the mapper ends too.
        let program = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "epmd", "-address", "127.0.0.1"])
            .args(["-port", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let listens = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        until("the port mapper listens", listens).await;
        Mapper { port, program }
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}
