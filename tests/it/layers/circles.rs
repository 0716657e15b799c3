//! Circles in what uses what, among files and among folders.

use std::collections::{BTreeMap, BTreeSet};

use super::imports::{Imports, module_path};

/// Who uses whom.
type Arrows = BTreeMap<String, BTreeSet<String>>;

/// The circles among files, each as its files in order.
pub(super) fn of_files(imports: &Imports) -> Vec<Vec<String>> {
    circles(&imports.iter().map(|(from, to)| (from.clone(), to.keys().cloned().collect())).collect())
}

/// The circles among what lies side by side in a folder, files or folders, each in order.
///
/// A folder and the file of its module (`net/` and `net.rs`) are one.
pub(super) fn of_folders(imports: &Imports) -> Vec<Vec<String>> {
    let mut levels: BTreeMap<String, Arrows> = BTreeMap::new();
    for (from, to) in imports.iter().flat_map(|(from, to)| to.keys().map(move |to| (from, to))) {
        let (from, to) = (module_path(from), module_path(to));
        let common = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
        // One of the two may be the module of the folder itself.
        let entry = |path: &[String]| path.get(common).map_or("mod.rs", String::as_str).to_owned();
        let entry = |path: &[String]| [&path[..common], &[entry(path)]].concat().join("/");
        levels.entry(from[..common].join("/")).or_default().entry(entry(&from)).or_default().insert(entry(&to));
    }
    levels.values().flat_map(circles).collect()
}

/// Sets of two or more of which each reaches every other.
fn circles(arrows: &Arrows) -> Vec<Vec<String>> {
    let reached: BTreeMap<&String, BTreeSet<&String>> = arrows.keys().map(|from| (from, reach(arrows, from))).collect();
    let mut found = BTreeSet::new();
    for (one, others) in &reached {
        let back = |other: &&&String| reached.get(**other).is_some_and(|reached| reached.contains(one));
        let circle: BTreeSet<_> = others.iter().filter(back).map(|name| (*name).clone()).collect();
        if circle.len() > 1 {
            found.insert(circle.into_iter().collect());
        }
    }
    found.into_iter().collect()
}

fn reach<'a>(arrows: &'a Arrows, from: &str) -> BTreeSet<&'a String> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(next) = open.pop() {
        for to in arrows.get(next).into_iter().flatten() {
            if reached.insert(to) {
                open.push(to);
            }
        }
    }
    reached
}

#[cfg(test)]
fn imports(arrows: &[(&str, &str)]) -> Imports {
    let mut imports = Imports::new();
    for (from, to) in arrows {
        imports.entry((*from).to_owned()).or_default().entry((*to).to_owned()).or_default();
    }
    imports
}

#[test]
fn circles_are_found_whole_and_once() {
    let arrows = [("a.rs", "b.rs"), ("b.rs", "c.rs"), ("c.rs", "a.rs"), ("c.rs", "d.rs"), ("e.rs", "a.rs")];
    assert_eq!(of_files(&imports(&arrows)), [["a.rs", "b.rs", "c.rs"]]);
    assert!(of_files(&imports(&arrows[..2])).is_empty());
}

#[test]
fn folders_make_a_circle_where_no_files_do() {
    let arrows = [("a/one.rs", "b/one.rs"), ("b/two.rs", "a/two.rs"), ("a/mod.rs", "a/one.rs"), ("c.rs", "a/one.rs")];
    assert!(of_files(&imports(&arrows)).is_empty());
    assert_eq!(of_folders(&imports(&arrows)), [["a", "b"]]);
    let arrows = [("a/one/x.rs", "a/two.rs"), ("a/two.rs", "a/one/y.rs"), ("a/mod.rs", "a/two.rs")];
    assert_eq!(of_folders(&imports(&arrows)), [["a/one", "a/two"]]);
    let arrows = [("a.rs", "a/one.rs"), ("a/two.rs", "a.rs")];
    assert!(of_folders(&imports(&arrows)).is_empty());
}
