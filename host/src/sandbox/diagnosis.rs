//! What a file that does not link seems to be, and what would make a plugin of it: judged by the names
//! alone that it imports and exports.

use super::contract::VERSION;

/// Where a command's core module imports from.
const PREVIEW_1: &str = "wasi_snapshot_preview1";

/// What WASI's first preview has.
const PREVIEW_1_FUNCTIONS: [&str; 46] = [
    "adapter_close_badfd",
    "args_get",
    "args_sizes_get",
    "clock_res_get",
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_advise",
    "fd_allocate",
    "fd_close",
    "fd_datasync",
    "fd_fdstat_get",
    "fd_fdstat_set_flags",
    "fd_fdstat_set_rights",
    "fd_filestat_get",
    "fd_filestat_set_size",
    "fd_filestat_set_times",
    "fd_pread",
    "fd_prestat_dir_name",
    "fd_prestat_get",
    "fd_pwrite",
    "fd_read",
    "fd_readdir",
    "fd_renumber",
    "fd_seek",
    "fd_sync",
    "fd_tell",
    "fd_write",
    "path_create_directory",
    "path_filestat_get",
    "path_filestat_set_times",
    "path_link",
    "path_open",
    "path_readlink",
    "path_remove_directory",
    "path_rename",
    "path_symlink",
    "path_unlink_file",
    "poll_oneoff",
    "proc_exit",
    "proc_raise",
    "random_get",
    "sched_yield",
    "sock_accept",
    "sock_recv",
    "sock_send",
];

/// The interfaces that a component may import, without their versions.
const INTERFACES: [&str; 30] = [
    "scutwork:task/control",
    "scutwork:task/log",
    "scutwork:task/task-types",
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:http/outgoing-handler",
    "wasi:http/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/network",
    "wasi:sockets/tcp",
    "wasi:sockets/udp",
];

/// Below this similarity, of 0 to 1, a suggestion would only distract.
const LIKENESS: f64 = 0.85;

/// What an import of a core module tells, which no command may have. Its exports tell the rest.
pub(super) fn module_import(from: &str, name: &str, exports: &[&str]) -> String {
    let exports_any = |names: &[&str]| names.iter().any(|name| exports.contains(name));
    if from == PREVIEW_1 {
        return suggest(name, &PREVIEW_1_FUNCTIONS);
    }
    let told = if from.starts_with("__wbindgen") || from == "wbg" || from.ends_with("_bg.js") {
        "wasm-bindgen made it for a JavaScript host; build it without, for wasm32-wasip2"
    } else if from == "wasi_unstable" {
        "it was built for WASI's preview 0 of 2019; build it anew with a toolchain of today"
    } else if from == "wasi" {
        "it was built for WASI threads, which are off; build it for wasm32-wasip1 without threads"
    } else if from == "go" || from == "gojs" {
        "Go made it for a JavaScript host; build it with GOOS=wasip1 GOARCH=wasm"
    } else if from == "env" && name == "memory" {
        "it wants its memory from the host, as programs with threads do; build it without threads"
    } else if from == "env"
        && (name == "abort" || name == "seed")
        && exports_any(&["__new", "main"])
    {
        "AssemblyScript made it for a JavaScript host; build it with its WASI shim"
    } else if is_emscripten(from, name, exports) {
        "Emscripten made it for a JavaScript host; build it with -sSTANDALONE_WASM, or with wasi-sdk"
    } else if from == "env" {
        "a function was declared and never defined; link what defines it"
    } else if from.contains(':') {
        "it is the core of a component; componentize it with `scutwork plugin build FILE --out DIR`, or build it for wasm32-wasip2"
    } else {
        return String::new();
    };
    format!(": {told}")
}

fn is_emscripten(from: &str, name: &str, exports: &[&str]) -> bool {
    let telling = [
        "emscripten_",
        "invoke_",
        "__syscall_",
        "_embind_",
        "__cxa_",
        "_emval_",
    ];
    match from {
        "env" => {
            telling.iter().any(|start| name.starts_with(start))
                || exports.iter().any(|name| name.starts_with("emscripten_"))
        }
        // As it shortens names when it optimizes.
        "a" => name.len() <= 2,
        _ => false,
    }
}

/// What the exports of a core module tell that has nothing to start.
pub(super) fn module_without_start(exports: &[&str]) -> &'static str {
    if exports.contains(&"_initialize") {
        "; it is a reactor, a library that is called from outside: build it as a program with a `main`"
    } else if exports
        .iter()
        .any(|name| name.starts_with("cabi_") || name.contains("scutwork:task"))
    {
        "; it is the core of a component: componentize it with `scutwork plugin build FILE --out DIR`"
    } else if exports.contains(&"run") || exports.contains(&"main") {
        "; it was built for no system at all: build it for wasm32-wasip2, or as a program for wasm32-wasip1"
    } else {
        ""
    }
}

/// What an import of a component tells that no host of this version provides.
pub(super) fn component_import(import: &str) -> String {
    let (interface, version) = match import.split_once('@') {
        Some((interface, version)) => (interface, Some(version)),
        None => (import, None),
    };
    let is_known = INTERFACES.contains(&interface);
    match version {
        Some(version) if interface.starts_with("scutwork:task/") && version != VERSION => {
            format!(
                ": the plugin was built for version {version} of the contract, and this host speaks \
                 {VERSION}; build it with the wit/ of this version"
            )
        }
        Some(version) if interface.starts_with("wasi:") && !version.starts_with("0.2.") => {
            format!(
                ": it was built for WASI {version}, and this host provides 0.2; build it for \
                 wasm32-wasip2"
            )
        }
        None if is_known => {
            ": it names no version, and is from before WASI 0.2; build it with a toolchain of today"
                .to_owned()
        }
        // Known, and of this version: it is the shape that differs, and the detail tells.
        Some(_) if is_known => String::new(),
        Some(_) | None => suggest(interface, &INTERFACES),
    }
}

/// The name that was meant, if one is near.
fn suggest(wanted: &str, known: &[&str]) -> String {
    known
        .iter()
        .map(|known| (strsim::normalized_damerau_levenshtein(wanted, known), known))
        .filter(|(likeness, known)| *likeness >= LIKENESS && **known != wanted)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map_or_else(String::new, |(_, known)| format!(": is `{known}` meant?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_for_another_host_is_told_by_what_it_imports() {
        let table: [(&str, &str, &[&str], &str); 12] = [
            (
                "__wbindgen_placeholder__",
                "__wbindgen_throw",
                &[],
                "wasm-bindgen",
            ),
            ("./pixels_bg.js", "log", &[], "wasm-bindgen"),
            ("wasi_unstable", "fd_write", &["_start"], "preview 0"),
            ("gojs", "runtime.wasmExit", &["run"], "GOOS=wasip1"),
            ("env", "memory", &["_start"], "threads"),
            ("env", "abort", &["__new"], "AssemblyScript"),
            ("env", "emscripten_resize_heap", &["main"], "Emscripten"),
            ("a", "b", &["c"], "Emscripten"),
            ("env", "draw_pixel", &["main"], "never defined"),
            ("wasi:cli/stdout@0.2.0", "get-stdout", &[], "componentize"),
            (
                "wasi_snapshot_preview1",
                "fd_wirte",
                &["_start"],
                "is `fd_write` meant?",
            ),
            ("wasi", "thread-spawn", &["_start"], "threads"),
        ];
        for (from, name, exports, word) in table {
            let told = module_import(from, name, exports);
            assert!(told.contains(word), "{from} {name}: {told}");
        }
        assert_eq!(module_import("acme", "open", &[]), "");
    }

    #[test]
    fn a_module_that_starts_nothing_is_told_by_what_it_exports() {
        for (export, word) in [
            ("_initialize", "reactor"),
            ("cabi_realloc", "componentize"),
            ("main", "no system at all"),
        ] {
            assert!(module_without_start(&[export]).contains(word), "{export}");
        }
        assert_eq!(module_without_start(&["memory"]), "");
    }

    #[test]
    fn an_import_that_does_not_exist_is_told_by_its_name() {
        for (import, word) in [
            ("scutwork:task/log@0.2.0", "version 0.2.0 of the contract"),
            ("scutwork:task/logs@0.1.0", "is `scutwork:task/log` meant?"),
            ("wasi:cli/stdout@0.3.0", "WASI 0.3.0"),
            (
                "wasi:filesytem/types@0.2.3",
                "is `wasi:filesystem/types` meant?",
            ),
            ("wasi:cli/environment", "no version"),
        ] {
            let told = component_import(import);
            assert!(told.contains(word), "{import}: {told}");
        }
        assert_eq!(component_import("acme:secret/door@1.0.0"), "");
        assert_eq!(component_import("wasi:cli/stdin@0.2.9"), "");
    }
}
