//! `scutwork dead export`: dead letters with their payloads as JSON lines.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::super::output;
use super::super::{Exit, Global, Stopped};
use super::choice::FilterArgs;
use super::{PAGE, letter, one_of};
use crate::broker::DeadLetters;

#[derive(Debug, Args)]
pub(in super::super) struct ExportArgs {
    /// The file to write, which must not be there yet [default: stdout]
    file: Option<PathBuf>,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Where the lines go.
enum Sink {
    Stdout,
    File(PathBuf, BufWriter<File>),
}

/// Runs the command. It succeeds only once every line is written, so that a discard can follow.
pub(super) async fn export(
    global: &Global,
    pass: &mut dyn DeadLetters,
    args: ExportArgs,
) -> Result<Exit, Stopped> {
    let mut sink = Sink::open(args.file)?;
    let mut count = 0;
    loop {
        let page = pass.next(PAGE).await?;
        if page.is_empty() {
            break;
        }
        for one in page.iter().filter(|one| args.filter.fits(one)) {
            let json = output::as_json(&letter::as_json_with_payload(one));
            sink.write(&format!("{json}\n"))?;
            count += 1;
        }
    }
    sink.finish()?;
    if global.quiet == 0 {
        output::say(&format!("{} exported", one_of(count, "dead letter")));
    }
    Ok(Exit::Done)
}

impl Sink {
    fn open(file: Option<PathBuf>) -> Result<Sink, Stopped> {
        let Some(path) = file else {
            return Ok(Sink::Stdout);
        };
        match File::create_new(&path) {
            Ok(file) => Ok(Sink::File(path, BufWriter::new(file))),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(Stopped::usage(
                format!("{} is there already; name a new file", path.display()),
            )),
            Err(error) => Err(Stopped::usage(format!(
                "cannot create {}: {error}",
                path.display()
            ))),
        }
    }

    fn write(&mut self, line: &str) -> Result<(), Stopped> {
        match self {
            Sink::Stdout => std::io::stdout()
                .lock()
                .write_all(line.as_bytes())
                .map_err(|error| unwritten(Path::new("stdout"), &error)),
            Sink::File(path, file) => file
                .write_all(line.as_bytes())
                .map_err(|error| unwritten(path, &error)),
        }
    }

    fn finish(self) -> Result<(), Stopped> {
        match self {
            Sink::Stdout => std::io::stdout()
                .lock()
                .flush()
                .map_err(|error| unwritten(Path::new("stdout"), &error)),
            Sink::File(path, mut file) => file
                .flush()
                .and_then(|()| file.get_ref().sync_all())
                .map_err(|error| unwritten(&path, &error)),
        }
    }
}

fn unwritten(path: &Path, error: &std::io::Error) -> Stopped {
    Stopped::from(anyhow::anyhow!(
        "the export is not complete, {} cannot be written: {error}",
        path.display()
    ))
}
