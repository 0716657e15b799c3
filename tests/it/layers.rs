//! The shape of the source: which layer may use which, no circles of imports, and a word in every file on what lives in it.
//!
//! This is the one place that says how the layers lie. `src/lib.rs` and `docs/development.md` tell it to readers, and are
//! compared with it.

mod circles;
mod imports;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use imports::module_path;

/// The layers, lowest first: the modules of each, with the modules of lower layers that they use. They use no others.
const LAYERS: &[&[(&str, &[&str])]] = &[
    &[("time", &[]), ("rules", &[])],
    &[("clock", &["time"])],
    &[("wire", &["clock"])],
    &[("ring", &["clock", "wire"])],
    &[
        ("store", &["time", "clock", "wire"]),
        ("binlog", &["time", "wire"]),
        ("tokyo", &[]),
        ("register", &["time", "clock", "wire", "ring"]),
    ],
    &[("env", &["time", "rules"])],
    &[("net", &["time", "wire", "env"])],
    &[("client", &["clock", "wire", "ring", "env", "net"])],
    &[
        ("server", &["time", "rules", "clock", "wire", "ring", "store", "binlog", "register", "env", "net"]),
        ("manager", &["time", "clock", "wire", "ring", "binlog", "register", "env", "net", "client"]),
        ("gateway", &["time", "clock", "wire", "ring", "binlog", "env", "net", "client"]),
        ("bench", &["time", "clock", "wire", "ring", "env"]),
        ("offline", &["clock", "wire", "ring", "store", "tokyo"]),
    ],
    &[("embedded", &["store", "wire", "register", "env", "net", "client", "server", "manager"])],
    &[("logging", &[])],
    &[("life", &["logging"])],
    &[(
        "cli",
        &[
            "clock", "wire", "ring", "store", "binlog", "register", "env", "net", "client", "server", "manager",
            "gateway", "bench", "offline", "logging", "life",
        ],
    )],
];

/// Other crates that only these modules may name.
const CRATES: &[(&str, &[&str])] = &[
    ("clap", &["cli"]),
    ("crossbeam_channel", &["store"]),
    ("daemonize", &["life"]),
    ("ratatui", &["cli"]),
    ("rusqlite", &["store"]),
    ("sha1", &["ring"]),
    ("tokio", &["env", "net", "client", "server", "manager", "gateway", "embedded", "life", "cli"]),
    ("tracing_appender", &["logging"]),
    ("tracing_subscriber", &["logging"]),
];

fn root() -> &'static Path {
    env!("CARGO_MANIFEST_DIR").as_ref()
}

/// The module of the crate that a file belongs to; empty for `lib.rs`.
fn module(file: &str) -> String {
    module_path(file).first().cloned().unwrap_or_default()
}

/// The modules that `module` may use; `None` if it belongs to no layer.
fn allowed(module: &str) -> Option<&'static [&'static str]> {
    LAYERS.iter().copied().flatten().find(|(name, _)| *name == module).map(|(_, uses)| *uses)
}

#[test]
fn a_layer_lists_only_lower_ones() {
    let mut lower = BTreeSet::new();
    for layer in LAYERS {
        for (name, uses) in *layer {
            let others: Vec<_> = uses.iter().filter(|used| !lower.contains(*used)).collect();
            assert!(others.is_empty(), "{name} may not use {others:?} of its own layer or a higher one");
        }
        lower.extend(layer.iter().map(|(name, _)| *name));
    }
}

#[test]
fn modules_use_what_the_layers_allow_and_nothing_else() {
    let (imports, _) = imports::read(&root().join("src"));
    let mut objections = Vec::new();
    let mut seen = BTreeSet::new();
    for (from, to, names) in imports.iter().flat_map(|(from, to)| to.iter().map(move |(to, names)| (from, to, names))) {
        let (one, other) = (module(from), module(to));
        let fine = one == other || one.is_empty() || allowed(&one).is_some_and(|uses| uses.contains(&other.as_str()));
        if !fine {
            objections.push(format!("{from} must not use {to}: {names:?}"));
        }
        seen.insert((one, other));
    }
    for (name, uses) in LAYERS.iter().copied().flatten() {
        for other in *uses {
            if !seen.contains(&((*name).to_owned(), (*other).to_owned())) {
                objections.push(format!("{name} may use {other}, and does not: take it off its layer"));
            }
        }
    }
    assert!(objections.is_empty(), "\n{}", objections.join("\n"));
}

#[test]
fn crates_are_named_where_they_belong() {
    let (_, crates) = imports::read(&root().join("src"));
    let mut objections = Vec::new();
    for (name, modules) in CRATES {
        let files = crates.iter().filter(|(_, named)| named.contains(*name)).map(|(file, _)| file);
        let strange: Vec<_> = files.clone().filter(|file| !modules.contains(&module(file).as_str())).collect();
        let idle: Vec<_> = modules.iter().filter(|one| !files.clone().any(|file| module(file) == **one)).collect();
        if !strange.is_empty() || !idle.is_empty() {
            objections.push(format!("{name}: must not be named in {strange:?}; is not named in {idle:?}"));
        }
    }
    assert!(objections.is_empty(), "\n{}", objections.join("\n"));
}

#[test]
fn files_and_folders_import_each_other_in_no_circle() {
    let (imports, _) = imports::read(&root().join("src"));
    let mut objections = Vec::new();
    for circle in circles::of_files(&imports) {
        objections.push(format!("a circle of files: {}", circle.join(" ")));
        for from in &circle {
            for (to, names) in imports[from].iter().filter(|(to, _)| circle.contains(to)) {
                objections.push(format!("    {from} uses {names:?} of {to}"));
            }
        }
    }
    for circle in circles::of_folders(&imports) {
        objections.push(format!("a circle of folders: {}", circle.join(" ")));
    }
    assert!(objections.is_empty(), "\n{}", objections.join("\n"));
}

/// The modules of each layer as a list or table tells them: words in backquotes, of lines that open with the layer's number.
fn told(text: &str, open: &str, words_of: impl Fn(&str) -> String) -> Vec<Vec<String>> {
    let numbered =
        |line: &&str| line.strip_prefix(open).is_some_and(|rest| rest.starts_with(|next: char| next.is_ascii_digit()));
    let words = |text: &str| {
        text.split('`').skip(1).step_by(2).map(|word| word.trim_start_matches("mod@").to_owned()).collect()
    };
    text.lines().filter(numbered).map(|line| words(&words_of(line))).collect()
}

#[test]
fn documents_tell_the_layers_as_they_are() {
    let layers: Vec<Vec<&str>> = LAYERS.iter().map(|layer| layer.iter().map(|(name, _)| *name).collect()).collect();
    let read = |path: &str| fs::read_to_string(root().join(path)).expect("a text");
    assert_eq!(told(&read("src/lib.rs"), "//! ", ToOwned::to_owned), layers, "src/lib.rs");
    let cell = |line: &str| line.split('|').nth(2).unwrap_or_default().to_owned();
    assert_eq!(told(&read("docs/development.md"), "| ", cell), layers, "docs/development.md");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            found.extend(files(&entry));
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            found.push(entry);
        }
    }
    found
}

#[test]
fn every_file_says_what_lives_in_it() {
    let folders = ["src", "tests", "benches", "examples"].map(|folder| root().join(folder));
    let silent: Vec<_> = folders
        .iter()
        .flat_map(|folder| files(folder))
        .filter(|file| !fs::read_to_string(file).expect("a file").starts_with("//!"))
        .collect();
    assert!(silent.is_empty(), "without a header: {silent:?}");
}
