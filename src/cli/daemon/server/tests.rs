//! The server's flags: defaults, the command lines of the original manual, and one line for each mistake.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use super::*;

/// svr1..3 are 10.0.0.1..3, mgr1..2 are 10.0.1.1..2; everything else is left to the system.
fn resolver(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let number = |prefix| host.strip_prefix(prefix).and_then(|digit: &str| digit.parse::<u8>().ok());
    match (number("svr"), number("mgr")) {
        (Some(server), _) => Ok(vec![(Ipv4Addr::new(10, 0, 0, server), port).into()]),
        (_, Some(manager)) => Ok(vec![(Ipv4Addr::new(10, 0, 1, manager), port).into()]),
        _ if host == "nowhere" => Err(io::Error::other("no such name")),
        _ => system_resolver(host, port),
    }
}

fn call(line: &str) -> Call {
    Call { program: "kumo-server".to_owned(), args: line.split_whitespace().map(Into::into).collect() }
}

fn config(line: &str) -> Result<Config, Stop> {
    parse::<Args>(&call(line), |command| command)?.config(&resolver)
}

fn life(line: &str) -> life::Settings {
    let args: Args = parse(&call(line), |command| command).unwrap();
    args.common.life("kumo-server", &args.bounds)
}

const LEAST: &str = "-m mgr1 -l svr1 -s /var/kumodb.tch";

#[test]
fn defaults_are_the_originals() {
    let config = config(LEAST).unwrap();
    assert_eq!(config.address.to_string(), "10.0.0.1:19800");
    assert_eq!(config.bind.to_string(), "10.0.0.1:19800");
    assert_eq!(config.stream_port, 19900);
    assert_eq!(config.managers.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.1.1:19700"]);
    assert_eq!((config.replicate_set_retries, config.replicate_delete_retries), (20, 20));
    assert_eq!((config.offer_dir.to_str(), config.offer_limit), (Some("/tmp"), None));
    assert_eq!(config.keepalive_interval, Duration::from_secs(2));
    assert_eq!((config.dial.timeout, config.dial.retry_limit), (Duration::from_secs(1), 4));
    assert_eq!(config.clock_interval, Duration::from_secs(8));
    assert_eq!(config.binary_log, None);
    assert_eq!(config.limits.message, 64 << 20);
    assert_eq!((config.limits.connections, config.limits.stalled), (10_000, Duration::from_mins(1)));
    let store = config.store;
    assert_eq!((store.path.to_str(), store.sync), (Some("/var/kumodb.tch"), SyncMode::Everysec));
    assert_eq!((store.write_threads, store.read_threads), (2, 4));
    assert_eq!((store.cache_bytes, store.redo_bytes, store.wal_bytes), (512 << 20, 512 << 20, 64 << 20));
    assert_eq!(store.sweep.min_age, Duration::from_mins(1));
    assert_eq!(store.sweep.max_age, Duration::from_hours(1));
    assert_eq!(store.sweep.memory_limit, 2048 << 10);
    let life = life(LEAST);
    assert_eq!((life.pid_file, life.keep_stdout, life.log.verbose), (None, false, false));
    assert_eq!(life.shutdown_timeout, Duration::from_secs(10));
}

#[test]
fn the_manuals_command_lines_run_as_written() {
    let one = config("-v -l svr1 -m mgr1 -p mgr2 -s /var/kumodb.tch -gN 5 -gS 20480").unwrap();
    assert_eq!(one.managers.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.1.1:19700", "10.0.1.2:19700"]);
    assert_eq!((one.store.sweep.min_age, one.store.sweep.memory_limit), (Duration::from_secs(5), 20480 << 10));
    let two = config("-v -l svr2 -m mgr1 -p mgr2 -s /var/kumodb.tch -TR 6 -TW 4").unwrap();
    assert_eq!((two.store.read_threads, two.store.write_threads), (6, 4));
    let three = config("-v -l svr3 -m mgr1 -p mgr2 -s /var/kumodb.tch -Ci 16").unwrap();
    assert_eq!(three.clock_interval, Duration::from_secs(16));
    for (line, port, stream) in [
        ("-v -m localhost -l localhost:19801 -L 19901 -s ./database1.tch", 19801, 19901),
        ("-v -m localhost -l localhost:19802 -L 19902 -s ./database2.tch", 19802, 19902),
        ("-v -m localhost -l localhost:19803 -L 19902 -s ./database3.tch", 19803, 19902),
    ] {
        let config = config(line).unwrap();
        assert_eq!(config.address.to_string(), format!("127.0.0.1:{port}"), "{line}");
        assert_eq!(config.stream_port, stream, "{line}");
        assert!(life(line).log.verbose, "{line}");
    }
}

#[test]
fn every_flag_arrives() {
    let config = config(
        "-m mgr1:1 -p mgr2:2 -l svr1:3 -L 4 -f / -s x -S 5 -D 6 -M 7 -gN 8 -gX 9 -gS 10 -k 0.5 -Ys 3.0 -Yn 11 -Ci 1.5 \
         -TW 12 -TR 13 -g bin.mpac --bind 0.0.0.0 --sync always --cache 14 --redo-limit 160 --wal-limit 19 --max-message 15 \
         --max-connections 17 --idle-timeout 18",
    )
    .unwrap();
    assert_eq!((config.address.to_string(), config.bind.to_string()), ("10.0.0.1:3".into(), "0.0.0.0:3".into()));
    assert_eq!((config.stream_port, config.offer_dir.to_str(), config.offer_limit), (4, Some("/"), Some(7 << 20)));
    assert_eq!((config.replicate_set_retries, config.replicate_delete_retries), (5, 6));
    assert_eq!(
        (config.keepalive_interval, config.clock_interval),
        (Duration::from_millis(500), Duration::from_millis(1500))
    );
    assert_eq!((config.dial.timeout, config.dial.retry_limit), (Duration::from_secs(3), 11));
    assert_eq!(config.binary_log, Some("bin.mpac".into()));
    assert_eq!((config.limits.message, config.limits.connections), (15 << 20, 17));
    assert_eq!(config.limits.stalled, Duration::from_secs(18));
    let store = config.store;
    assert_eq!((store.sync, store.cache_bytes), (SyncMode::Always, 14 << 20));
    assert_eq!((store.redo_bytes, store.wal_bytes), (160 << 20, 19 << 20));
    assert_eq!((store.write_threads, store.read_threads), (12, 13));
    assert_eq!((store.sweep.min_age.as_secs(), store.sweep.max_age.as_secs()), (8, 9));
    assert_eq!(store.sweep.memory_limit, 10 << 10);

    let life = life(&format!("{LEAST} -v -d x.pid -o x.log --shutdown-timeout 19"));
    assert_eq!((life.pid_file, life.keep_stdout), (Some("x.pid".into()), false));
    assert_eq!(life.log.target, crate::logging::Target::File("x.log".into()));
    assert_eq!(life.shutdown_timeout, Duration::from_secs(19));
}

#[test]
fn a_minimum_age_above_the_maximum_is_lowered() {
    let store = config(&format!("{LEAST} -gN 100 -gX 10")).unwrap().store;
    assert_eq!((store.sweep.min_age, store.sweep.max_age), (Duration::from_secs(10), Duration::from_secs(10)));
}

#[test]
fn a_dash_sends_the_log_to_stdout_for_good() {
    let life = life(&format!("{LEAST} -o -"));
    assert_eq!((life.log.target, life.keep_stdout), (crate::logging::Target::Stdout, true));
}

#[test]
fn ipv6_literals_are_addresses() {
    let config = config("-m [::1] -l [::1]:19801 -s x").unwrap();
    assert_eq!(config.address.to_string(), "[::1]:19801");
    assert_eq!(config.managers.first().unwrap().to_string(), "[::1]:19700");
}

#[test]
fn mistakes_are_one_line_that_names_flag_and_value() {
    let usage = |text: &str| Stop::Usage(text.to_owned());
    for (more, stop) in [
        ("-gN x", usage("invalid value 'x' for '-gN <SEC>': not a number of seconds")),
        ("-gN", usage("a value is required for '-gN <SEC>' but none was supplied")),
        ("-Ys 0", usage("invalid value '0' for '-Ys <SEC>': must be at least 0.001 seconds")),
        ("-TR 0", usage("invalid value '0' for '-TR <N>': 0 is not in 1..=256")),
        ("-TR -1", usage("invalid value '-1' for '-TR <N>': invalid digit found in string")),
        ("-L 65536", usage("invalid value '65536' for '-L <PORT>': 65536 is not in 0..=65535")),
        ("-gQ 5", usage("unknown flag '-gQ'; there are -gN, -gX, -gS")),
        (
            "-l 0.0.0.0",
            usage(
                "-l 0.0.0.0: others must be able to dial this address (to listen on every interface, add --bind 0.0.0.0)",
            ),
        ),
        ("-l svr1:x", usage("invalid value 'svr1:x' for '-l <ADDR[:PORT]>': 'x' is not a port (0 to 65535)")),
        ("-m mgr1:0", usage("-m mgr1:0: not the address of a node")),
        ("-p mgr1:19700", usage("-p mgr1:19700: the same manager as -m mgr1")),
        ("-l mgr1:19700", usage("-l mgr1:19700: the address of a manager")),
        ("-g -", usage("-g -: the binary log needs a file")),
        ("-s /", usage("-s /: not the name of a file")),
        ("--sync never", usage("invalid value 'never' for '--sync <MODE>' [possible values: always, everysec, os]")),
        ("--max-message 2048", usage("--max-message 2048: must be from 1 to 1024 MiB")),
        ("--redo-limit 100", usage("--redo-limit 100: must be at least 128 MiB, twice --max-message")),
        ("--wal-limit 3", usage("--wal-limit 3: must be at least 4 MiB")),
        ("extra", usage("unexpected argument 'extra' found")),
        ("-p nowhere:0", usage("-p nowhere:0: not the address of a node")),
        ("-l nowhere", Stop::Failed("-l nowhere: cannot resolve host 'nowhere': no such name".to_owned())),
        ("-f /nowhere", Stop::Failed("-f /nowhere: not a directory".to_owned())),
    ] {
        assert_eq!(config(&format!("{LEAST} {more}")).unwrap_err(), stop, "{more}");
    }
    let missing = "the following required arguments were not provided: --listen <ADDR[:PORT]>, --store <PATH>, \
                   --manager1 <ADDR[:PORT]>";
    assert_eq!(config("-v").unwrap_err(), usage(missing));
}

#[test]
fn a_manager_whose_name_does_not_resolve_yet_is_named_all_the_same() {
    let config = config("-m nowhere -p mgr1 -l svr1 -s /var/kumodb.tch").unwrap();
    let [one, two] = &config.managers[..] else { panic!("two managers") };
    assert_eq!((one.address(), one.name().as_str()), (None, "nowhere:19700"));
    assert_eq!(two.address().map(|address| address.to_string()).as_deref(), Some("10.0.1.1:19700"));
}
