//! A cluster on IPv6: among nodes of this program its addresses travel as 22 bytes.

use std::net::{Ipv6Addr, SocketAddr, TcpListener};

use crate::harness::{Folder, Port, Process, kumo_server, required, wait_until};

fn at(port: &Port) -> String {
    SocketAddr::from((Ipv6Addr::LOCALHOST, port.number())).to_string()
}

#[test]
fn records_are_kept_on_three_servers() {
    if !required::is_there("IPv6", TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()) {
        return;
    }
    let folder = Folder::new();
    let (manager, ports) = (Port::reserve(), [Port::reserve(), Port::reserve(), Port::reserve()]);
    let _manager = Process::spawn(&folder, "manager", &kumo_server(), &["manager", "-l", &at(&manager), "-k", "0.3"]);
    let _servers = ports.each_ref().map(|port| {
        let name = format!("server{}", port.number());
        let args = ["-v", "-l", &at(port), "-L", "0", "-m", &at(&manager), "-s", &name, "-k", "0.3", "-f", "."];
        Process::spawn(&folder, &name, &kumo_server(), &args)
    });
    let tool = |args: &[&str]| Process::run(&folder, &kumo_server(), args);
    let manager = at(&manager);
    wait_until("all servers are known", || tool(&["ctl", &manager, "status"]).stdout.matches("[::1]").count() == 3);
    assert!(tool(&["ctl", &manager, "attach", "--wait"]).status.success());
    assert!(tool(&["set", "-m", &manager, "key", "value"]).status.success());
    assert_eq!(tool(&["get", "-m", &manager, "key"]).stdout.trim_end(), "value");
    let status = tool(&["ctl", &manager, "status"]).stdout;
    assert_eq!(status.matches("(active)").count(), 3, "{status}");
}
