use kumo_server::clock::Clock;
use kumo_server::store::*;
use kumo_server::wire::{RecordKey, record};
use std::sync::Arc;
use std::sync::atomic::*;
use std::time::*;
#[global_allocator]
static A: mimalloc::MiMalloc = mimalloc::MiMalloc;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let keys: u64 = a[1].parse().unwrap();
    let secs: u64 = a[2].parse().unwrap();
    let batch: usize = a[3].parse().unwrap();
    let cache: u64 = a[4].parse().unwrap();
    let redo: u64 = a[5].parse().unwrap();
    let sync = &a[6];
    let threads: u64 = a.get(7).map_or(2, |x| x.parse().unwrap());
    let dir = std::path::Path::new("/work/wt-store/target/load");
    if a.get(8).is_none() {
        let _ = std::fs::remove_dir_all(dir);
    }
    std::fs::create_dir_all(dir).unwrap();
    let mut o = Options::new(dir.join("db"));
    o.cache_bytes = cache << 20;
    o.redo_bytes = redo << 20;
    o.sync = match sync.as_str() {
        "always" => SyncMode::Always,
        "os" => SyncMode::Os,
        _ => SyncMode::Everysec,
    };
    let t = Instant::now();
    let store = Store::open(o, |f| Arc::new(Clock::new(f))).unwrap();
    println!("open {:?} items {}", t.elapsed(), store.status().items);
    let stop = Arc::new(AtomicBool::new(false));
    let ops = Arc::new(AtomicU64::new(0));
    let later = Arc::new(AtomicU64::new(0));
    let lats: Vec<_> = (0..threads).map(|_| Arc::new(std::sync::Mutex::new(Vec::<u32>::new()))).collect();
    let mut hs = vec![];
    for th in 0..threads {
        let store = store.clone();
        let stop = stop.clone();
        let ops = ops.clone();
        let later = later.clone();
        let lat = lats[th as usize].clone();
        hs.push(std::thread::spawn(move || {
            let mut x = 88172645463325252u64 ^ (th * 7919 + 1);
            let body = [7u8; 102];
            let mut raw;
            while !stop.load(Ordering::Relaxed) {
                let t = Instant::now();
                let mut b = store.batch();
                let mut l = vec![];
                for _ in 0..batch {
                    x ^= x << 13;
                    x ^= x >> 7;
                    x ^= x << 17;
                    let n = x % keys;
                    raw = record::raw_key(n.wrapping_mul(0x9e37_79b9_7f4a_7c15), format!("key-{n:09}").as_bytes());
                    let w = Write::Set { key: RecordKey::new(&raw).unwrap(), body: &body };
                    match b.apply(&w) {
                        Applied::Done(_) => {}
                        Applied::Later => l.push((&w).into()),
                        Applied::Failed(e) => panic!("{e}"),
                    }
                }
                let (s, r) = std::sync::mpsc::channel();
                let s2 = s.clone();
                let mut n = 1;
                b.commit(move |x| {
                    x.unwrap();
                    let _ = s2.send(());
                });
                if !l.is_empty() {
                    later.fetch_add(l.len() as u64, Ordering::Relaxed);
                    n += 1;
                    store.write(
                        l,
                        |_, _| (),
                        move |x| {
                            x.unwrap();
                            let _ = s.send(());
                        },
                    );
                }
                for _ in 0..n {
                    r.recv().unwrap();
                }
                ops.fetch_add(batch as u64, Ordering::Relaxed);
                lat.lock().unwrap().push(t.elapsed().as_micros() as u32);
            }
        }));
    }
    let mut last = 0;
    let step = 5;
    for i in 0..secs / step {
        std::thread::sleep(Duration::from_secs(step));
        let n = ops.load(Ordering::Relaxed);
        let mut all: Vec<u32> = vec![];
        for l in &lats {
            all.append(&mut l.lock().unwrap());
        }
        all.sort_unstable();
        let p = |q: f64| all[((all.len() - 1) as f64 * q) as usize];
        let s = store.status();
        let rss = std::fs::read_to_string("/proc/self/status")
            .unwrap()
            .lines()
            .find(|l| l.starts_with("VmRSS"))
            .unwrap()
            .split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            / 1024;
        println!(
            "{:3}s {:7}/s p50 {} p99 {} p99.9 {} max {} us later {} items {} dirty {} redo {}M cache {}M wal {}M tree {}M rss {}M merges {} avg {} rec {} ms/merge {:?}",
            (i + 1) * step,
            (n - last) / step,
            p(0.5),
            p(0.99),
            p(0.999),
            all[all.len() - 1],
            later.swap(0, Ordering::Relaxed),
            s.items,
            s.dirty,
            s.redo_bytes >> 20,
            s.cache_bytes >> 20,
            s.wal_bytes >> 20,
            s.tree_bytes >> 20,
            rss,
            s.merges,
            s.merged_records / s.merges.max(1),
            s.merge_micros / 1000 / s.merges.max(1),
            s.failed
        );
        last = n;
    }
    stop.store(true, Ordering::Relaxed);
    for h in hs {
        h.join().unwrap();
    }
    let t = Instant::now();
    store.close().unwrap();
    println!("close {:?}", t.elapsed());
}
