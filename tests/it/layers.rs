//! The shape of the source: no module uses a layer above its own, and every file says what lives in it.

use std::fs;
use std::path::{Path, PathBuf};

/// The layers, lowest first. A module may use its own layer and those before it.
const LAYERS: &[&[&str]] = &[
    &["time"],
    &["clock"],
    &["wire"],
    &["ring"],
    &["store", "binlog", "tokyo"],
    &["env"],
    &["net"],
    &["server", "manager", "client", "gateway", "bench", "offline"],
    &["logging"],
    &["life"],
    &["cli"],
];

/// Modules that serve every role and must not know any.
const KNOW_NO_ROLE: &[(&str, &[&str])] = &[
    (
        "logging",
        &["wire", "clock", "ring", "store", "binlog", "net", "server", "manager", "client", "gateway", "bench"],
    ),
    ("life", &["wire", "clock", "ring", "store", "binlog", "net", "server", "manager", "client", "gateway", "bench"]),
    ("binlog", &["store"]),
    ("tokyo", &["clock", "ring", "store", "binlog"]),
    ("store", &["tokyo"]),
];

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

fn root() -> &'static Path {
    env!("CARGO_MANIFEST_DIR").as_ref()
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// The modules of the crate that a line of source names.
fn used_modules(line: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|next| next.is_alphanumeric() || *next == '_').collect::<String>();
    line.split("crate::")
        .skip(1)
        .flat_map(|rest| match rest.strip_prefix('{') {
            Some(list) => list.split(',').map(|name| word(name.trim())).collect(),
            None => vec![word(rest)],
        })
        .filter(|name| !name.is_empty())
        .collect()
}

/// What is wrong with a use of `used` in `module`.
fn objection(module: &str, used: &str) -> Option<&'static str> {
    let forbidden = KNOW_NO_ROLE.iter().any(|(name, list)| *name == module && list.contains(&used));
    match (layer(module), layer(used)) {
        (None, _) => Some("its module belongs to no layer"),
        (Some(own), Some(other)) if other > own => Some("it is of a higher layer"),
        _ if forbidden => Some("it must not be known here"),
        _ => None,
    }
}

#[test]
fn no_module_uses_a_higher_layer() {
    let source = root().join("src");
    let mut objections = Vec::new();
    for file in files(&source) {
        let within = file.strip_prefix(&source).expect("a file of the source");
        let module = within.iter().next().map(|first| Path::new(first).with_extension("")).unwrap_or_default();
        let module = module.to_str().expect("a name");
        if ["lib", "main"].contains(&module) {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a file");
        let code = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
        for (number, line) in code {
            for used in used_modules(line) {
                if let Some(why) = objection(module, &used) {
                    objections.push(format!("{}:{}: {used}: {why}", within.display(), number + 1));
                }
            }
        }
    }
    assert!(objections.is_empty(), "\n{}", objections.join("\n"));
}

#[test]
fn the_check_itself_sees_what_it_should() {
    assert_eq!(used_modules("use crate::{wire, net::Link}; crate::store::open()"), ["wire", "net", "store"]);
    assert!(objection("wire", "net").is_some());
    assert!(objection("net", "wire").is_none());
    assert!(objection("life", "wire").is_some());
    assert!(objection("elsewhere", "wire").is_some());
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
