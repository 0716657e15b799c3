//! Links to the binary: made, found again, never in the place of something else.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::generated::tools;
use crate::harness::{Finished, Folder, Process, kumo_server};

fn install(folder: &Folder, args: &[&str]) -> Finished {
    let args = [&["install-links"], args].concat();
    Process::run(folder, &kumo_server(), &args)
}

#[track_caller]
fn fine(finished: &Finished) -> &str {
    assert_eq!((finished.status.code(), finished.stderr.as_str()), (Some(0), ""), "{finished:?}");
    &finished.stdout
}

#[test]
fn every_link_is_made_once_and_works() {
    let folder = Folder::new();
    fs::create_dir(folder.join("bin")).unwrap();
    let bin = fs::canonicalize(folder.join("bin")).unwrap();
    let links: Vec<_> =
        std::iter::once("kumo-server".to_owned()).chain(tools().into_iter().filter_map(|(_, link)| link)).collect();
    let said = |word: &str| {
        links.iter().flat_map(|link| [bin.to_str().unwrap(), "/", link, ": ", word, "\n"]).collect::<String>()
    };
    assert_eq!(fine(&install(&folder, &["bin"])), said("made"));
    assert_eq!(fine(&install(&folder, &["bin"])), said("is there"));
    for link in &links {
        let version = Process::run(&folder, &bin.join(link), &["--version"]);
        let line = format!("{link} {}", env!("CARGO_PKG_VERSION"));
        assert_eq!(fine(&version).lines().next(), Some(line.as_str()));
    }
    // A link called kumo-server has the tools, too, and can make the links again.
    let again = Process::run(&folder, &bin.join("kumo-server"), &["install-links", "bin"]);
    assert_eq!(fine(&again), said("is there"));
    assert_eq!(fs::read_dir(&bin).unwrap().count(), links.len(), "nothing else is left there");
}

#[test]
fn what_is_something_else_stays_unless_forced() {
    let folder = Folder::new();
    let path = |name: &str| fs::canonicalize(folder.path()).unwrap().join(name);
    fs::write(path("kumoctl"), "of 2010").unwrap();
    symlink("/nowhere/kumostat", path("kumostat")).unwrap();
    let refused = install(&folder, &["."]);
    let line = format!(
        "kumo-server install-links: already exists and is not this binary: {}, {} (--force replaces files); nothing was changed\n",
        path("kumoctl").display(),
        path("kumostat").display()
    );
    assert_eq!((refused.status.code(), refused.stderr, refused.stdout), (Some(1), line, String::new()));
    assert!(!path("kumo-server").exists());
    assert_eq!(fs::read_to_string(path("kumoctl")).unwrap(), "of 2010");

    let forced = install(&folder, &[".", "--force"]);
    let said = fine(&forced);
    assert!(said.contains(&format!("{}: made\n", path("kumotop").display())), "{said}");
    for name in ["kumoctl", "kumostat"] {
        assert!(said.contains(&format!("{}: replaced\n", path(name).display())), "{said}");
        assert_eq!(fs::canonicalize(path(name)).unwrap(), fs::canonicalize(kumo_server()).unwrap());
    }

    fs::remove_file(path("kumotop")).unwrap();
    fs::create_dir(path("kumotop")).unwrap();
    let refused = install(&folder, &[".", "--force"]);
    assert!(refused.stderr.ends_with("kumotop (a folder is never replaced); nothing was changed\n"), "{refused:?}");
    let nowhere = install(&folder, &["nowhere"]);
    assert_eq!(nowhere.stderr, "kumo-server install-links: nowhere: No such file or directory (os error 2)\n");
}

#[test]
fn beside_the_binary_links_are_relative() {
    let folder = Folder::new();
    let binary = folder.join("kumo-server");
    // By a process of its own: a file that this one has open for writing may be inherited by another test's process
    // at the wrong moment, and then it cannot be run.
    fine(&Process::run(&folder, "cp".as_ref(), &[kumo_server().to_str().unwrap(), "kumo-server"]));
    let made = Process::run(&folder, &binary, &["install-links", "."]);
    assert!(fine(&made).contains("kumo-server: is there\n"));
    assert_eq!(fs::read_link(folder.join("kumoctl")).unwrap(), Path::new("kumo-server"));
}
