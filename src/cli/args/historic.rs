//! The two-letter flags of 2010 (`-gN 5`, `-Ys 3.0`): one dash, several letters, which clap does not know.
//!
//! They are rewritten into their long names before clap sees them, and back again in what clap has to say. Knows the
//! spelling of flags, nothing of what they mean.

use std::ffi::OsString;

use clap::{Arg, Command};

/// A two-letter flag and the long name that clap knows it by.
struct Flag {
    letters: &'static str,
    long: &'static str,
}

/// Every two-letter flag of the original daemons; a command has those whose long name it has.
const FLAGS: &[Flag] = &[
    Flag { letters: "gN", long: "garbage-min-time" },
    Flag { letters: "gX", long: "garbage-max-time" },
    Flag { letters: "gS", long: "garbage-mem-limit" },
    Flag { letters: "Ys", long: "connect-timeout" },
    Flag { letters: "Yn", long: "connect-retry-limit" },
    Flag { letters: "Ci", long: "clock-interval" },
    Flag { letters: "TW", long: "write-threads" },
    Flag { letters: "TR", long: "read-threads" },
    Flag { letters: "Rs", long: "replace-delay" },
    Flag { letters: "As", long: "async-replicate-set" },
    Flag { letters: "Ad", long: "async-replicate-delete" },
    Flag { letters: "rn", long: "renew-threshold" },
    Flag { letters: "lc", long: "local-cache" },
];

/// Arguments as clap understands them, and how each option was spelled.
#[derive(Debug)]
pub(in crate::cli) struct Rewritten {
    pub(in crate::cli) args: Vec<OsString>,
    spelled: Vec<(String, String)>,
}

/// Rewrites the two-letter flags of `command` in `args` (without the program's name).
///
/// Values of other options and everything behind `--` stay as they are. `-gN5` and `-gN=5` count as `-gN 5`. The error
/// names a flag that looks like a two-letter one but is none.
pub(in crate::cli) fn rewrite(
    command: &Command,
    args: impl IntoIterator<Item = OsString>,
) -> Result<Rewritten, String> {
    let mut out = Rewritten { args: Vec::new(), spelled: Vec::new() };
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let Some(text) = arg.to_str() else {
            out.args.push(arg);
            continue;
        };
        if text == "--" {
            out.args.push(arg);
            out.args.extend(args);
            break;
        }
        if let Some((flag, attached)) = two_letters(command, text)? {
            out.spelled.push((flag.long.to_owned(), format!("-{}", flag.letters)));
            let mut long = OsString::from(format!("--{}", flag.long));
            let value = match attached {
                Some(value) => Some(OsString::from(value)),
                None if find(command, flag.long).is_some_and(takes_value) => args.next(),
                None => None,
            };
            // Joined, so that a value with a leading dash is still the value and a bad one is named with its flag.
            if let Some(value) = value {
                long.push("=");
                long.push(value);
            }
            out.args.push(long);
            continue;
        }
        let option = option_of(command, text);
        if let Some((option, _)) = option
            && let Some(long) = option.get_long()
        {
            let letter = option.get_short().filter(|_| !text.starts_with("--"));
            out.spelled.push((long.to_owned(), letter.map_or(format!("--{long}"), |letter| format!("-{letter}"))));
        }
        let value_follows = option.is_some_and(|(option, complete)| !complete && takes_value(option));
        out.args.push(arg);
        if value_follows {
            out.args.extend(args.next());
        }
    }
    Ok(out)
}

impl Rewritten {
    /// Puts flags in clap's `message` back to the way they were spelled.
    pub(in crate::cli) fn restore(&self, message: &str) -> String {
        self.spelled
            .iter()
            .fold(message.to_owned(), |text, (long, spelling)| replace_word(&text, &format!("--{long}"), spelling))
    }
}

/// Shows the two-letter flags in clap's `help`, in the column of the one-letter ones.
pub(in crate::cli) fn restore_help(help: &str) -> String {
    FLAGS.iter().fold(help.to_owned(), |text, flag| {
        replace_word(&text, &format!("      --{}", flag.long), &format!(" -{}, --{}", flag.letters, flag.long))
    })
}

/// Shows the two-letter flags in a man `page` in front of their long names.
pub(in crate::cli) fn restore_page(page: &str) -> String {
    FLAGS.iter().fold(page.to_owned(), |text, flag| {
        let long = format!("\\fB\\-\\-{}\\fR", flag.long.replace('-', "\\-"));
        text.replace(&long, &format!("\\fB\\-{}\\fR, {long}", flag.letters))
    })
}

/// The two-letter flag that `text` is, with a value attached to it.
fn two_letters<'a>(command: &Command, text: &'a str) -> Result<Option<(&'static Flag, Option<&'a str>)>, String> {
    let Some(letters) = text.strip_prefix('-').filter(|rest| !rest.starts_with('-')) else {
        return Ok(None);
    };
    let known = || FLAGS.iter().filter(|flag| find(command, flag.long).is_some());
    for flag in known() {
        match letters.strip_prefix(flag.letters) {
            Some("") => return Ok(Some((flag, None))),
            Some(value) if value.starts_with(|first: char| first.is_ascii_digit()) => {
                return Ok(Some((flag, Some(value))));
            }
            Some(value) if value.starts_with('=') => return Ok(Some((flag, value.strip_prefix('=')))),
            _ => {}
        }
    }
    // `-gQ` would otherwise be a binary log named "Q", and `-TQ` an unknown `-T`.
    let looks_like_one = letters.len() == 2 && letters.bytes().all(|byte| byte.is_ascii_alphabetic());
    let relatives: Vec<_> = known()
        .filter(|flag| letters.starts_with(|first| flag.letters.starts_with(first)))
        .map(|flag| format!("-{}", flag.letters))
        .collect();
    match relatives.as_slice() {
        _ if !looks_like_one => Ok(None),
        [] if FLAGS.iter().any(|flag| flag.letters == letters) => Err(format!("unknown flag '{text}'")),
        [] => Ok(None),
        _ => Err(format!("unknown flag '{text}'; there are {}", relatives.join(", "))),
    }
}

/// The option that `text` ends with, and whether `text` already holds its value.
fn option_of<'a>(command: &'a Command, text: &str) -> Option<(&'a Arg, bool)> {
    if let Some(long) = text.strip_prefix("--") {
        let (name, complete) = long.split_once('=').map_or((long, false), |(name, _)| (name, true));
        return find(command, name).map(|option| (option, complete));
    }
    let mut letters = text.strip_prefix('-')?.chars();
    let mut last = None;
    while let Some(letter) = letters.next() {
        let option = command.get_arguments().find(|option| option.get_short() == Some(letter))?;
        if takes_value(option) {
            return Some((option, !letters.as_str().is_empty()));
        }
        last = Some((option, true));
    }
    last
}

fn find<'a>(command: &'a Command, long: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|option| option.get_long() == Some(long))
}

fn takes_value(option: &Arg) -> bool {
    option.get_action().takes_values()
}

/// Replaces `from` where no longer name begins with it.
fn replace_word(text: &str, from: &str, to: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(from) {
        let longer = after.starts_with(|next: char| next == '-' || next.is_ascii_alphanumeric());
        out.push_str(before);
        out.push_str(if longer { from } else { to });
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use clap::ArgAction;

    use super::*;

    fn command() -> Command {
        let value =
            |short: Option<char>, long: &'static str| Arg::new(long).short(short).long(long).action(ArgAction::Set);
        Command::new("test")
            .arg(value(None, "garbage-min-time"))
            .arg(value(None, "read-threads"))
            .arg(value(Some('g'), "binary-log"))
            .arg(value(Some('s'), "store"))
            .arg(Arg::new("async").long("async-replicate-set").action(ArgAction::SetTrue))
            .arg(Arg::new("verbose").short('v').long("verbose").action(ArgAction::SetTrue))
            .arg(Arg::new("rest").action(ArgAction::Append))
    }

    fn rewritten(args: &str) -> String {
        let args = args.split_whitespace().map(OsString::from);
        let args = rewrite(&command(), args).unwrap().args;
        args.into_iter().map(|arg| arg.into_string().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn flags_become_long_and_the_rest_stays() {
        for (written, seen) in [
            ("-gN 5", "--garbage-min-time=5"),
            ("-gN5", "--garbage-min-time=5"),
            ("-gN=5", "--garbage-min-time=5"),
            ("-gN -1", "--garbage-min-time=-1"),
            ("-gN", "--garbage-min-time"),
            ("-As -v", "--async-replicate-set -v"),
            ("-g path", "-g path"),
            ("-g -", "-g -"),
            ("-gpath", "-gpath"),
            ("-g -TR", "-g -TR"),
            ("-vs -gN -TR 6", "-vs -gN --read-threads=6"),
            ("-s/a -TR 6", "-s/a --read-threads=6"),
            ("--store -gN -gN 5", "--store -gN --garbage-min-time=5"),
            ("--store=a -gN 5", "--store=a --garbage-min-time=5"),
            ("-- -gN 5", "-- -gN 5"),
            ("-v -v x -gN 1", "-v -v x --garbage-min-time=1"),
        ] {
            assert_eq!(rewritten(written), seen, "{written}");
        }
    }

    #[test]
    fn a_flag_of_another_daemon_is_an_error() {
        assert_eq!(rewrite(&command(), [OsString::from("-lc")]).unwrap_err(), "unknown flag '-lc'");
    }

    #[test]
    fn an_unknown_relative_is_named() {
        for (written, message) in
            [("-gQ", "unknown flag '-gQ'; there are -gN"), ("-tR", "-tR"), ("-TX", "unknown flag '-TX'; there are -TR")]
        {
            match rewrite(&command(), [OsString::from(written)]) {
                Err(error) => assert_eq!(error, message),
                Ok(rewritten) => assert_eq!(rewritten.args, [OsString::from(message)]),
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn bytes_that_are_no_text_pass() {
        use std::os::unix::ffi::OsStringExt;
        let path = OsString::from_vec(vec![b'-', 0xff]);
        let out = rewrite(&command(), [OsString::from("-s"), path.clone(), path.clone()]).unwrap();
        assert_eq!(out.args, [OsString::from("-s"), path.clone(), path]);
    }

    #[test]
    fn messages_show_what_was_written() {
        let args = ["-gN", "x", "-s", "y", "--read-threads", "z"].map(OsString::from);
        let out = rewrite(&command(), args).unwrap();
        let message = "--garbage-min-time --store --read-threads --store-more --binary-log";
        assert_eq!(out.restore(message), "-gN -s --read-threads --store-more --binary-log");
    }

    #[test]
    fn help_lists_them_in_their_column() {
        let help = "  -v, --verbose\n      --read-threads <N>  text\n      --read-threads-max\n";
        assert_eq!(restore_help(help), "  -v, --verbose\n -TR, --read-threads <N>  text\n      --read-threads-max\n");
    }
}
