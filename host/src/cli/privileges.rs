//! What this process gives up before it does anything.

use super::output;

/// Sees to it that neither this process nor any that it starts can come by more rights, as by a
/// set-user-id program. Call it before there are threads: each has this for itself, and inherits it.
pub fn give_up() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::set_no_new_privs(true) {
        output::complain(&format!(
            "this system lets no process give up the way to more rights: {error}"
        ));
    }
}
