//! The program: parse the command line, run one command.

use std::process::ExitCode;

use clap::Parser;
use scutwork::cli::{Cli, privileges};

fn main() -> ExitCode {
    privileges::give_up();
    let cli = Cli::parse();
    if let Some(code) = cli.run_alone() {
        return code;
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "nothing else can say it yet")]
            {
                eprintln!("scutwork: cannot start threads: {error}");
            }
            return ExitCode::from(70);
        }
    };
    let code = runtime.block_on(cli.run());
    // What still runs belongs to a command that was told to end at once.
    runtime.shutdown_background();
    code
}
