//! What a manifest grants, and that nothing beside it is reached.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use scutwork::event::{Event, Observer, Observers};
use scutwork::outcome::{Failure, Limit, Outcome};
use scutwork::plugin::registry::Refused;
use scutwork::plugin::{Plugin, embedded};
use scutwork::sandbox::{Cancel, Job, Limits, Sandbox, SandboxSettings};
use scutwork::task::Task;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{self, pki_types::PrivatePkcs8KeyDer};

use crate::support::program::PATIENCE;
use crate::support::shelf;

/// The plugin that tries what its payload says, with a manifest, beside a directory of the host's.
struct Nosy {
    folder: TempDir,
    plugin: Arc<Plugin>,
}

/// What a guest says, line by line.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Observer for Lines {
    fn observe(&self, event: &Event<'_>) {
        if let Event::Line { message, .. } = event {
            self.0.lock().unwrap().push((*message).to_owned());
        }
    }
}

fn sandbox() -> Arc<Sandbox> {
    static SANDBOX: OnceLock<Arc<Sandbox>> = OnceLock::new();
    let settings = SandboxSettings {
        slots: 8,
        ceiling: Limits::CEILING,
        threads: 2,
    };
    Arc::clone(SANDBOX.get_or_init(|| Arc::new(Sandbox::new(&settings).unwrap())))
}

fn load(folder: &TempDir, manifest: &str) -> Result<Arc<Plugin>, Refused> {
    let path = |name: &str| folder.path().join(name);
    fs::write(path("nosy.wasm"), embedded::nosy()).unwrap();
    let manifest = manifest.replace("HERE", folder.path().to_str().unwrap());
    fs::write(path("nosy.toml"), manifest).unwrap();
    Plugin::from_file(&path("nosy.wasm"), sandbox(), &shelf::rules())
}

impl Nosy {
    /// `HERE` in the manifest is a folder that has a file, a directory and ways out.
    fn with(manifest: &str) -> Nosy {
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("outside"), "private").unwrap();
        fs::create_dir_all(at("data/below")).unwrap();
        fs::write(at("data/inside"), "public").unwrap();
        symlink("../outside", at("data/way-out")).unwrap();
        symlink("..", at("data/below/up-and-out")).unwrap();
        symlink("../..", at("data/below/far-out")).unwrap();
        symlink(at("outside"), at("data/absolute")).unwrap();
        fs::write(at("key"), "hunter2-hunter2\n").unwrap();
        let plugin = load(&folder, manifest).unwrap();
        Nosy { folder, plugin }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn content(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    async fn outcome(&self, tries: &str, observers: &Observers) -> Outcome {
        let task = task(tries);
        let job = Job {
            prepared: &self.plugin.prepared,
            task: &task,
            grants: &self.plugin.manifest.grants,
            limits: self.plugin.manifest.limits,
            max_attempts: 1,
        };
        sandbox().run(job, observers, &Cancel::new()).await.outcome
    }

    /// What came of each try, and what was said meanwhile.
    async fn tries(&self, tries: &str) -> (Vec<String>, Vec<String>) {
        let lines = Lines::default();
        let observers = Observers::new(vec![Box::new(lines.clone())]);
        match self.outcome(tries, &observers).await {
            Outcome::Done(output) => {
                let told = String::from_utf8(output.body.to_vec()).unwrap();
                let said = lines.0.lock().unwrap().clone();
                (told.lines().map(str::to_owned).collect(), said)
            }
            other => panic!("{other:?}"),
        }
    }
}

fn task(payload: &str) -> Task {
    Task {
        id: "task-1".into(),
        plugin: "nosy".parse().unwrap(),
        payload: payload.to_owned().into(),
        content_type: None,
        headers: Vec::new(),
        attempt: 1,
    }
}

#[track_caller]
fn assert_denied(came: &[String]) {
    for line in came {
        assert!(line.starts_with("denied: "), "{came:#?}");
    }
}

const OUT: &str = "read /data/../outside
read /outside
read outside
read /data/way-out
read /data/absolute
read /data/below/up-and-out/../outside
read /data/below/far-out/outside
read /data/inside/
read /data/inside/.
read /etc/passwd
list /data/..
list /data/below/far-out
list /";

#[tokio::test]
async fn a_directory_that_is_granted_for_reading_is_read_and_nothing_else() {
    let nosy = Nosy::with("[files]\n\"/data\" = { path = \"HERE/data\" }");
    let (came, _) = nosy
        .tries("read /data/inside\nlist /data/below\nread /data/below/up-and-out/inside")
        .await;
    assert_eq!(came, ["public", "far-out up-and-out", "public"]);
    assert_denied(&nosy.tries(OUT).await.0);
    let changes = "write /data/inside changed
write /data/new new
remove /data/inside
remove /data/way-out
rename /data/inside /data/moved";
    assert_denied(&nosy.tries(changes).await.0);
    assert_eq!(nosy.content("data/inside"), "public");
    assert!(nosy.path("data/way-out").is_symlink());
    assert!(!nosy.path("data/new").exists());
}

#[tokio::test]
async fn a_directory_that_is_granted_for_writing_is_written_and_nothing_outside_it() {
    let nosy = Nosy::with("[files]\n\"/data\" = { path = \"HERE/data\", access = \"write\" }");
    let out = "write /data/way-out changed
write /data/absolute changed
write /data/../outside changed
write /data/below/far-out/outside changed
write /data/new/ changed
write /data/inside/ changed
rename /data/inside /data/../moved
rename /data/inside /data/below/far-out/moved
remove /data/below/far-out/outside";
    assert_denied(&nosy.tries(out).await.0);
    assert_denied(&nosy.tries(OUT).await.0);
    assert_eq!(nosy.content("outside"), "private");
    // A name that is a way out is replaced, not followed.
    let (came, _) = nosy
        .tries("write /data/new new\nrename /data/new /data/way-out\nremove /data/inside")
        .await;
    assert_eq!(came, ["written", "renamed", "removed"]);
    assert_eq!(nosy.content("outside"), "private");
    assert_eq!(nosy.content("data/way-out"), "new");
    assert!(!nosy.path("data/inside").exists());
}

#[test]
fn what_is_granted_and_is_not_there_is_refused_with_what_to_do() {
    let folder = TempDir::new().unwrap();
    for (manifest, words) in [
        (
            "[files]\n\"/data\" = { path = \"HERE/none\" }",
            ["files.\"/data\"", "/none cannot be read", "create it"],
        ),
        (
            "[env]\nKEY = { file = \"HERE/none\" }",
            ["env.KEY", "/none cannot be read", "create it"],
        ),
        (
            "[env]\nKEY = { file = \"HERE\" }",
            ["env.KEY", "is no file", "put the value into one"],
        ),
    ] {
        let refused = load(&folder, manifest).unwrap_err();
        assert!(refused.file.ends_with("nosy.toml"), "{refused:?}");
        for word in words {
            assert!(refused.reason.contains(word), "{word}: {refused:?}");
        }
    }
}

#[tokio::test]
async fn variables_hold_what_the_manifest_says_and_a_secret_what_its_file_says_now() {
    let nosy = Nosy::with("[env]\nREGION = \"eu\"\nKEY = { file = \"HERE/key\" }");
    let tries = "env REGION\nenv KEY\nenv PATH";
    let (came, _) = nosy.tries(tries).await;
    assert_eq!(came[..2], ["eu", "hunter2-hunter2"]);
    assert_denied(&came[2..]);
    fs::write(nosy.path("key"), "correct-horse\r\n").unwrap();
    assert_eq!(nosy.tries("env KEY").await.0, ["correct-horse"]);
}

#[tokio::test]
async fn a_secret_is_in_no_line_and_no_failure_and_no_debug_output() {
    let nosy = Nosy::with("[env]\nKEY = { file = \"HERE/key\" }");
    let (_, said) = nosy.tries("say KEY").await;
    assert_eq!(said, ["[secret]", "[secret]"]);
    for tries in ["panic KEY", "reject KEY"] {
        match nosy.outcome(tries, &Observers::default()).await {
            Outcome::Failed(failure) => {
                let told = failure.to_string();
                assert!(told.contains("[secret]"), "{told}");
                assert!(!told.contains("hunter2"), "{told}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(!format!("{:?}", nosy.plugin).contains("hunter2"));
}

/// Answers requests on a port of its own, one after another.
struct Server {
    address: SocketAddr,
    /// The heads of requests, and an empty one when a client has hung up on what it waited for.
    heads: Receiver<String>,
}

impl Server {
    fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, heads) = channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let head = read_head(&stream);
                let hangs = head.starts_with("GET /hang ");
                if sender.send(head.clone()).is_err() {
                    return;
                }
                if hangs {
                    // Returns once the other side is gone.
                    let _ = stream.read(&mut [0]);
                    let _ = sender.send(String::new());
                    continue;
                }
                let answer = match head.split(' ').nth(1) {
                    Some("/away") => {
                        format!("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\n{BARE}")
                    }
                    _ => format!("HTTP/1.1 200 OK\r\n{HELLO}"),
                };
                // A client that is gone misses it.
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Server { address, heads }
    }

    fn port(&self) -> u16 {
        self.address.port()
    }

    fn head(&self) -> String {
        self.heads.recv_timeout(PATIENCE).unwrap()
    }
}

const HELLO: &str = "content-length: 5\r\nconnection: close\r\n\r\nhello";
const BARE: &str = "content-length: 0\r\nconnection: close\r\n\r\n";

fn read_head(stream: &TcpStream) -> String {
    let mut head = String::new();
    for line in BufReader::new(stream).lines() {
        match line {
            Ok(line) if !line.is_empty() => head += &(line + "\n"),
            _ => break,
        }
    }
    head
}

#[tokio::test]
async fn a_granted_origin_is_reached_and_asked_for_nothing_but_the_path() {
    let server = Server::start();
    let port = server.port();
    let nosy = Nosy::with(&format!("[http]\nallow = [\"http://127.0.0.1:{port}\"]"));
    let (came, said) = nosy
        .tries(&format!("get http://127.0.0.1:{port}/a?b=c"))
        .await;
    assert_eq!((came, said), (vec!["200 hello".to_owned()], vec![]));
    let head = server.head();
    assert!(head.starts_with("GET /a?b=c HTTP/1.1\n"), "{head}");
    assert!(
        head.contains(&format!("host: 127.0.0.1:{port}\n")),
        "{head}"
    );
}

#[tokio::test]
async fn what_is_not_granted_is_refused_with_the_lines_that_grant_it() {
    let nothing = Nosy::with("");
    let (came, said) = nothing.tries("get https://api.example.com/v1").await;
    assert_eq!(came, ["denied: ErrorCode::HttpRequestDenied"]);
    assert_eq!(
        said,
        [
            "request to https://api.example.com refused: it is not granted; to grant it, write in \
          nosy.toml: [http] allow = [\"https://api.example.com\"]"
        ]
    );
    let other = Nosy::with("[http]\nallow = [\"https://example.com\"]");
    let (came, said) = other.tries("get https://api.example.com/v1").await;
    assert_denied(&came);
    assert!(
        said[0].ends_with("nosy.toml: \"https://api.example.com\" among http.allow"),
        "{said:?}"
    );
}

#[tokio::test]
async fn a_name_that_leads_to_this_host_is_refused_unless_it_is_said_to_be_private() {
    let server = Server::start();
    let origin = format!("http://localhost:{}", server.port());
    let nosy = Nosy::with(&format!("[http]\nallow = [\"{origin}\"]"));
    let (came, said) = nosy.tries(&format!("get {origin}/")).await;
    assert_eq!(came, ["denied: ErrorCode::DestinationIpProhibited"]);
    assert!(said[0].contains("is not a public address"), "{said:?}");
    let line = format!("{{ origin = \"{origin}\", private = true }}");
    assert!(said[0].contains(&line), "{said:?}");
    assert!(server.heads.try_recv().is_err());
    let nosy = Nosy::with(&format!("[http]\nallow = [{line}]"));
    assert_eq!(nosy.tries(&format!("get {origin}/")).await.0, ["200 hello"]);
}

#[tokio::test]
async fn no_notation_of_an_address_and_no_redirect_goes_around_the_list() {
    let server = Server::start();
    let port = server.port();
    let nosy = Nosy::with(&format!(
        "[http]\nallow = [\"https://example.com\", {{ origin = \"http://localhost:{port}\", private = true }}]"
    ));
    let tries = format!(
        "get http://127.0.0.1:{port}/
get http://2130706433:{port}/
get http://0x7f000001:{port}/
get http://017700000001:{port}/
get http://[::1]:{port}/
get http://[::ffff:127.0.0.1]:{port}/
get http://localhost@127.0.0.1:{port}/
get http://localhost:1/
get https://localhost:{port}/
get http://169.254.169.254/latest/meta-data/
get http://[fd00:ec2::254]/"
    );
    assert_denied(&nosy.tries(&tries).await.0);
    assert!(server.heads.try_recv().is_err());
    // The guest would have to follow it, and that is one more request.
    let away = format!("get http://localhost:{port}/away\nget http://127.0.0.1:1/");
    let (came, _) = nosy.tries(&away).await;
    assert_eq!(came[0], "302 ");
    assert_denied(&came[1..]);
}

#[tokio::test]
async fn a_path_that_is_a_whole_url_asks_no_server_for_another() {
    let server = Server::start();
    let origin = format!("http://127.0.0.1:{}", server.port());
    let nosy = Nosy::with(&format!("[http]\nallow = [\"{origin}\"]"));
    let tries = format!(
        "ask {origin} http://169.254.169.254/latest/
ask {origin} //169.254.169.254/latest/
ask {origin} @169.254.169.254/latest/
ask {origin} .evil.example/
ask {origin} *"
    );
    for came in nosy.tries(&tries).await.0 {
        // What is a path after all was asked of the server that is granted.
        if came == "200 hello" {
            let head = server.head();
            assert!(
                head.starts_with("GET //169.254.169.254/latest/ HTTP/1.1\n"),
                "{head}"
            );
            assert!(
                head.contains(&format!("host: 127.0.0.1:{}\n", server.port())),
                "{head}"
            );
        } else {
            assert_denied(&[came]);
        }
    }
    assert!(server.heads.try_recv().is_err());
}

#[tokio::test]
async fn a_dropped_run_hangs_up_on_the_server_that_it_waits_for() {
    let server = Server::start();
    let port = server.port();
    let nosy = Nosy::with(&format!("[http]\nallow = [\"http://127.0.0.1:{port}\"]"));
    let observers = Observers::default();
    let tries = format!("get http://127.0.0.1:{port}/hang");
    let asked = tokio::task::spawn_blocking(move || (server.head(), server));
    let server = tokio::select! {
        outcome = nosy.outcome(&tries, &observers) => panic!("{outcome:?}"),
        asked = asked => {
            let (head, server) = asked.unwrap();
            assert!(head.starts_with("GET /hang "), "{head}");
            server
        }
    };
    // The run was dropped with the other arm, and the server hears of it.
    let hung_up = tokio::task::spawn_blocking(move || server.head());
    assert_eq!(hung_up.await.unwrap(), "");
}

#[tokio::test]
async fn a_response_over_its_limit_ends_the_run_and_names_the_setting() {
    let server = Server::start();
    let port = server.port();
    let nosy = Nosy::with(&format!(
        "[limits]\nhttp_body = 4\n[http]\nallow = [\"http://127.0.0.1:{port}\"]"
    ));
    let tries = format!("get http://127.0.0.1:{port}/");
    match nosy.outcome(&tries, &Observers::default()).await {
        Outcome::Failed(Failure::LimitExceeded { limit, message }) => {
            assert_eq!(limit, Limit::HttpBody);
            assert!(
                message.contains("raise limits.http_body in nosy.toml"),
                "{message}"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_left_when_the_request_has_had_its_time() {
    let server = Server::start();
    let port = server.port();
    let nosy = Nosy::with(&format!(
        "[limits]\nhttp_timeout = \"500ms\"\n[http]\nallow = [\"http://127.0.0.1:{port}\"]"
    ));
    let (came, _) = nosy
        .tries(&format!("get http://127.0.0.1:{port}/hang"))
        .await;
    assert_eq!(came, ["denied: ErrorCode::ConnectionReadTimeout"]);
    assert!(server.head().starts_with("GET /hang "));
    assert_eq!(server.head(), "", "and the server hears of it");
}

#[tokio::test]
async fn a_run_that_waits_for_a_file_which_gives_nothing_ends_at_its_timeout() {
    let nosy =
        Nosy::with("[limits]\ntimeout = \"1s\"\n[files]\n\"/data\" = { path = \"HERE/data\" }");
    let pipe = nosy.path("data/pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    // To open it for reading waits until somebody opens it for writing.
    let observers = Observers::default();
    let run = nosy.outcome("read /data/pipe", &observers);
    match tokio::time::timeout(PATIENCE, run).await.unwrap() {
        Outcome::Failed(Failure::LimitExceeded { limit, .. }) => assert_eq!(limit, Limit::Timeout),
        other => panic!("{other:?}"),
    }
    // Lets the host's own thread go.
    drop(fs::OpenOptions::new().write(true).open(pipe).unwrap());
}

/// A server with a certificate for `localhost` and whoever signed it, as a file. It serves one client
/// after another and ends with the runtime.
async fn tls_server(authority_file: &Path) -> u16 {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
    fs::write(authority_file, authority_pem).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // Who does not trust it breaks off here.
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let answer = format!("HTTP/1.1 200 OK\r\n{HELLO}");
            stream.write_all(answer.as_bytes()).await.unwrap();
            let _ = stream.shutdown().await;
        }
    });
    port
}

#[tokio::test]
async fn a_server_is_reached_over_tls_if_its_certificate_is_trusted() {
    let folder = TempDir::new().unwrap();
    let authority = folder.path().join("authority.pem");
    let port = tls_server(&authority).await;
    let origin = format!("https://localhost:{port}");
    let manifest = format!("[http]\nallow = [{{ origin = \"{origin}\", private = true }}]");
    load(&folder, &manifest).unwrap();
    let payload = format!("get {origin}/");
    let run = async |trusted: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_scutwork"));
        command
            .current_dir(folder.path())
            .args(["run", "nosy.wasm", &payload])
            .env("SSL_CERT_FILE", trusted);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output = output.await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (String::from_utf8_lossy(&output.stdout).into_owned(), said)
    };
    let (told, said) = run(&authority).await;
    assert_eq!(told.trim(), "200 hello", "{said}");
    let stranger = folder.path().join("stranger.pem");
    tls_server(&stranger).await;
    let (told, said) = run(&stranger).await;
    assert!(told.starts_with("denied: "), "{told}");
    assert!(said.contains("invalid peer certificate"), "{said}");
}
