//! What a test needs of the machine and cannot make itself: programs that others have written, privileges.
//!
//! Without it a test checks nothing, and says so. Where `KUMO_REQUIRE_PROGRAMS` is 1, as `.ci/run` sets it, it fails.

use std::io::Write;
use std::process::{Command, Stdio};

/// Whether what a test needs is `there`; `what` names it and says what it is for.
#[track_caller]
pub(crate) fn is_there(what: &str, there: bool) -> bool {
    decide(what, there, std::env::var("KUMO_REQUIRE_PROGRAMS").is_ok_and(|value| value == "1"))
}

#[track_caller]
fn decide(what: &str, there: bool, required: bool) -> bool {
    assert!(there || !required, "KUMO_REQUIRE_PROGRAMS is 1, and this machine does not have {what}");
    if !there {
        // Not `eprintln`, which a test that passes keeps to itself.
        let line = format!("not checked: this machine does not have {what}\n");
        std::io::stderr().write_all(line.as_bytes()).expect("stderr");
    }
    there
}

/// Whether `program` is there and ends well with `args`.
pub(crate) fn runs(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[test]
fn what_is_missing_fails_a_test_where_it_is_required() {
    assert!(decide("a shell", runs("sh", &["-c", "exit 0"]), true));
    assert!(!decide("a program that this test makes up", runs("kumo-no-such-program", &[]), false));
    assert!(!runs("sh", &["-c", "exit 1"]));
    let failed = std::panic::catch_unwind(|| decide("it", false, true)).expect_err("a failure");
    assert_eq!(
        failed.downcast_ref::<String>().map(String::as_str),
        Some("KUMO_REQUIRE_PROGRAMS is 1, and this machine does not have it")
    );
}
