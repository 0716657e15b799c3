//! The imports of the crate's source: which file uses a name that another one defines. Read from the text, without a compiler.
//!
//! A name that a module only hands on (`pub use`) belongs to the file that defines it: naming it through the module is no
//! use of the module's own file. Code under `#[cfg(test)]` does not count. Unseen stay calls of methods, whose file no
//! import names, and what macros make.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

/// A path like `crate::wire::Request`, by its words.
type Names = Vec<String>;

/// The files of the crate with what each takes from others: the other file, and the names.
pub(super) type Imports = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// The files of the crate with the other crates that each names, macros and attributes included.
pub(super) type Crates = BTreeMap<String, BTreeSet<String>>;

/// One module and the file that holds it.
#[derive(Default)]
struct Module {
    file: String,
    /// What `use` binds here: a name to its path.
    bound: HashMap<String, Names>,
    /// Paths that the code uses, those of `use` included where the name is used.
    used: Vec<Names>,
    /// Modules from which `use` takes all names.
    globs: Vec<Names>,
}

/// What every file of `source` imports from others, and from other crates; files are named by their paths in `source`.
pub(super) fn read(source: &Path) -> (Imports, Crates) {
    let mut sources = Vec::new();
    collect(source, source, &mut sources);
    let mut for_tests: Vec<Names> = Vec::new();
    let mut modules: BTreeMap<Names, Module> = BTreeMap::new();
    for (file, text) in &sources {
        let path = module_path(file);
        let (code, test_modules) = without_tests(&tokens(text));
        for_tests.extend(test_modules.into_iter().map(|name| [path.clone(), vec![name]].concat()));
        modules.insert(path, module(file, &code));
    }
    modules.retain(|path, _| !for_tests.iter().any(|test| path.starts_with(test)));
    let tree = Tree(modules);
    let (mut imports, mut crates) = (Imports::new(), Crates::new());
    for (path, module) in &tree.0 {
        let foreign = module.used.iter().chain(&module.globs).filter(|used| tree.walk(path, used, 0).is_none());
        crates.insert(module.file.clone(), foreign.map(|used| used[0].clone()).collect());
        let from = imports.entry(module.file.clone()).or_default();
        for used in &module.used {
            if let Some((owner, name)) = tree.owner(path, used, 0)
                && owner != path
            {
                from.entry(tree.0[owner].file.clone()).or_default().insert(name);
            }
        }
        for glob in &module.globs {
            if let Some((target, rest)) = tree.walk(path, glob, 0)
                && rest.is_empty()
                && target != *path
            {
                from.entry(tree.0[&target].file.clone()).or_default().insert("*".to_owned());
            }
        }
    }
    (imports, crates)
}

fn collect(source: &Path, folder: &Path, texts: &mut Vec<(String, String)>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path()).collect();
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            collect(source, &entry, texts);
        } else if entry.extension().is_some_and(|extension| extension == "rs") && !entry.ends_with("main.rs") {
            let name = entry.strip_prefix(source).expect("a file of the source").to_str().expect("a name").to_owned();
            texts.push((name, fs::read_to_string(&entry).expect("a file")));
        }
    }
}

/// The module of a file: `net/mod.rs` and `net.rs` hold `net`, `lib.rs` the crate.
pub(super) fn module_path(file: &str) -> Names {
    let mut names: Names = file.trim_end_matches(".rs").split('/').map(ToOwned::to_owned).collect();
    names.pop_if(|last| last == "mod" || (file == "lib.rs" && last == "lib"));
    names
}

/// The modules by their paths.
struct Tree(BTreeMap<Names, Module>);

impl Tree {
    /// The module that defines what `used` names in `module`, and the name there. `None`: another crate, or a module.
    fn owner(&self, module: &Names, used: &[String], depth: usize) -> Option<(&Names, String)> {
        let (target, rest) = self.walk(module, used, depth)?;
        let (owner, _) = self.0.get_key_value(&target)?;
        Some((owner, rest.first()?.clone()))
    }

    /// Follows `used` from `module` on: to a module of the crate, and what is left of the path: nothing, or what it defines.
    fn walk(&self, module: &Names, used: &[String], depth: usize) -> Option<(Names, Names)> {
        if depth > 20 {
            return None;
        }
        let mut current = module.clone();
        let mut rest = used;
        match rest.first()?.as_str() {
            "crate" => (current, rest) = (Names::new(), &rest[1..]),
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|name| name == "super") {
                    current.pop()?;
                    rest = &rest[1..];
                }
            }
            first => {
                let child = [current.clone(), vec![first.to_owned()]].concat();
                if !self.0.contains_key(&child) && !self.0[&current].bound.contains_key(first) {
                    return None;
                }
            }
        }
        while let Some(name) = rest.first() {
            let child = [current.clone(), vec![name.clone()]].concat();
            if self.0.contains_key(&child) {
                (current, rest) = (child, &rest[1..]);
            } else if let Some(bound) = self.0.get(&current)?.bound.get(name).filter(|bound| bound[..] != *used) {
                return self.walk(&current, &[bound, &rest[1..]].concat(), depth + 1);
            } else {
                break;
            }
        }
        Some((current, rest.to_vec()))
    }
}

/// Words and the signs that matter between them; comments, texts and lifetimes are left out.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let mut found = Vec::new();
    let mut index = 0;
    while index < chars.len() {
        let next = at(index);
        if next == '/' && at(index + 1) == '/' {
            while index < chars.len() && at(index) != '\n' {
                index += 1;
            }
        } else if next == '/' && at(index + 1) == '*' {
            while index < chars.len() && !(at(index) == '*' && at(index + 1) == '/') {
                index += 1;
            }
            index += 2;
        } else if next == '"' {
            index += 1;
            while index < chars.len() && at(index) != '"' {
                index += if at(index) == '\\' { 2 } else { 1 };
            }
            index += 1;
        } else if next == '\'' && (at(index + 1) == '\\' || at(index + 2) == '\'') {
            // A character; else a lifetime, whose word does no harm.
            index += if at(index + 1) == '\\' { 3 } else { 2 };
            while index < chars.len() && at(index) != '\'' {
                index += 1;
            }
            index += 1;
        } else if next.is_alphabetic() || next == '_' {
            let start = index;
            while at(index).is_alphanumeric() || at(index) == '_' {
                index += 1;
            }
            let word: String = chars[start..index].iter().collect();
            let hashes = chars[index..].iter().take_while(|next| **next == '#').count();
            if matches!(word.as_str(), "r" | "br") && at(index + hashes) == '"' {
                let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
                index += hashes + 1;
                while index < chars.len() && !chars[index..].starts_with(&end) {
                    index += 1;
                }
                index += end.len();
            } else {
                found.push(word);
            }
        } else if next == ':' && at(index + 1) == ':' {
            found.push("::".to_owned());
            index += 2;
        } else {
            if !next.is_whitespace() {
                found.push(next.to_string());
            }
            index += 1;
        }
    }
    found
}

/// The tokens without items under `#[cfg(test)]`, and the names of the modules among those.
fn without_tests(tokens: &[String]) -> (Vec<String>, Names) {
    const TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut modules) = (Vec::new(), Names::new());
    let mut index = 0;
    while index < tokens.len() {
        if !tokens[index..].iter().take(TEST.len()).eq(TEST) {
            kept.push(tokens[index].clone());
            index += 1;
            continue;
        }
        index += TEST.len();
        let mut depth = 0_usize;
        let start = index;
        loop {
            match tokens.get(index).map(String::as_str) {
                Some("{" | "(" | "[") => depth += 1,
                Some(")" | "]") => depth -= 1,
                Some("}") => {
                    depth -= 1;
                    if depth == 0 {
                        break;
                    }
                }
                Some(";" | ",") if depth == 0 => break,
                None => break,
                Some(_) => {}
            }
            index += 1;
        }
        index += 1;
        let item = &tokens[start..index.min(tokens.len())];
        if let Some(place) = item.iter().position(|token| token == "mod") {
            modules.push(item[place + 1].clone());
        }
    }
    (kept, modules)
}

/// What a file's tokens say of its imports.
fn module(file: &str, tokens: &[String]) -> Module {
    let mut module = Module { file: file.to_owned(), ..Module::default() };
    let mut words = BTreeSet::new();
    let mut index = 0;
    while index < tokens.len() {
        let token = tokens[index].as_str();
        let is_path = is_word(token) && (index == 0 || !matches!(tokens[index - 1].as_str(), "::" | "."));
        if token == "use" && tokens.get(index + 1).is_none_or(|next| next != "<") {
            let end = index + tokens[index..].iter().position(|token| token == ";").expect("the end of a use");
            expand(&tokens[index + 1..end], &Names::new(), &mut module);
            index = end;
        } else if is_path {
            let mut path = vec![token.to_owned()];
            while tokens.get(index + 1).is_some_and(|next| next == "::")
                && tokens.get(index + 2).is_some_and(|next| is_word(next))
            {
                path.push(tokens[index + 2].clone());
                index += 2;
            }
            words.insert(path[0].clone());
            if path.len() > 1 {
                module.used.push(path);
            }
        }
        index += 1;
    }
    let named = module.bound.iter().filter(|(name, _)| words.contains(*name));
    module.used.extend(named.map(|(_, path)| path.clone()));
    // A trait that is only there for its methods is never named.
    let anonymous = module.bound.iter().filter(|(name, _)| name.starts_with("_ "));
    let anonymous: Vec<_> = anonymous.map(|(_, path)| path.clone()).collect();
    module.used.extend(anonymous);
    module
}

fn is_word(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Takes in the tree of one `use`, whose paths begin with `prefix`.
fn expand(tree: &[String], prefix: &[String], module: &mut Module) {
    let mut path = prefix.to_vec();
    let mut index = 0;
    while let Some(token) = tree.get(index) {
        match token.as_str() {
            "::" => {}
            "*" => return module.globs.push(path),
            "as" => {
                let alias = tree[index + 1].clone();
                let alias = if alias == "_" { format!("_ {}", path.join("::")) } else { alias };
                module.bound.insert(alias, path);
                return;
            }
            "{" => {
                let (mut depth, mut start) = (0_usize, index + 1);
                for place in index..tree.len() {
                    match tree[place].as_str() {
                        "{" => depth += 1,
                        "}" => depth -= 1,
                        _ => {}
                    }
                    if depth == 0 || (depth == 1 && tree[place] == ",") {
                        if start < place {
                            expand(&tree[start..place], &path, module);
                        }
                        start = place + 1;
                    }
                }
                return;
            }
            "self" if !path.is_empty() => {}
            word => path.push(word.to_owned()),
        }
        index += 1;
    }
    if let Some(name) = path.last().cloned() {
        module.bound.insert(name, path);
    }
}

/// Imports of a crate whose files have these texts.
#[cfg(test)]
fn of(files: &[(&str, &str)]) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    let arrow = |(from, to): (String, BTreeMap<String, BTreeSet<String>>)| {
        to.into_iter()
            .map(move |(to, names)| format!("{from} -> {to}: {}", names.into_iter().collect::<Vec<_>>().join(" ")))
    };
    read(folder.path()).0.into_iter().flat_map(arrow).collect()
}

#[test]
fn imports_lead_to_the_file_that_defines_the_name() {
    let found = of(&[
        ("lib.rs", "pub mod a; mod b;"),
        ("a/mod.rs", "mod deep; pub use deep::{Deep, deeper as Other}; pub struct Flat;"),
        ("a/deep.rs", "use super::Flat; pub struct Deep(Flat); pub fn deeper() {}"),
        ("b.rs", "use crate::a::{self, Deep}; fn b(_: Deep) { a::Other(); let _ = crate::a::Flat; std::fs::read() }"),
    ]);
    assert_eq!(found, ["a/deep.rs -> a/mod.rs: Flat", "b.rs -> a/deep.rs: Deep deeper", "b.rs -> a/mod.rs: Flat"]);
}

#[test]
fn what_is_no_code_or_only_for_tests_does_not_count() {
    let found = of(&[
        ("lib.rs", "mod a; mod b;"),
        (
            "a.rs",
            "// crate::b::One\n/* crate::b::Two */ const T: &str = \"crate::b::Three\"; const R: &str = r#\"\"crate::b::Four\"#;",
        ),
        (
            "b.rs",
            "#[cfg(test)] mod tests; #[cfg(test)] use crate::a::Five; #[cfg(test)] mod more { use crate::a::Six; fn f() -> Six {} } \
                  fn c<'a>() -> char { '\"' } fn d() { crate::a::seven() }",
        ),
        ("b/tests.rs", "use crate::a::Eight; fn f(_: Eight) {}"),
    ]);
    assert_eq!(found, ["b.rs -> a.rs: seven"]);
}

#[test]
fn a_parent_that_uses_its_child_is_seen() {
    let found = of(&[
        ("lib.rs", "mod a;"),
        ("a.rs", "mod b; mod c; use c::*; fn f() { b::g(); } pub struct A;"),
        ("a/b.rs", "pub fn g() -> super::A {} use super::super::a::A as _;"),
        ("a/c.rs", ""),
    ]);
    assert_eq!(found, ["a.rs -> a/b.rs: g", "a.rs -> a/c.rs: *", "a/b.rs -> a.rs: A"]);
}
