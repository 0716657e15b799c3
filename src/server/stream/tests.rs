//! Streams over real connections: between two of ours, with recorded bytes, and with peers that misbehave.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::encode::tests::stream as encoded;
use super::format::{NIL, SIGN};
use super::*;
use crate::env::{Env, Stream};
use crate::wire::{NodeAddress, RecordKey, RecordValue};

/// Time after which a silent peer is given up in these tests.
const SHORT: Duration = Duration::from_millis(200);
const LIMIT: usize = 1 << 20;

type Records = Vec<(Vec<u8>, Vec<u8>)>;

fn some(count: usize) -> Records {
    (0..count).map(|at| (crate::ring::raw_key(&at.to_be_bytes()), vec![at.to_le_bytes()[0]; 20 + at % 100])).collect()
}

/// Records that do not compress: more of them than the sockets' buffers take.
fn noise() -> Records {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56).to_le_bytes()[0]
    };
    (0..32_u64).map(|at| (crate::ring::raw_key(&at.to_be_bytes()), (0..LIMIT).map(|_| next()).collect())).collect()
}

fn node(port: u16) -> NodeAddress {
    NodeAddress::new(([127, 0, 0, 1], port).into())
}

fn chunk(records: &Records) -> Arc<Chunk> {
    let mut encoder = Encoder::create(&std::env::temp_dir()).unwrap();
    for (key, value) in records {
        encoder.push(RecordKey::new(key).unwrap(), RecordValue::new(value).unwrap()).unwrap();
    }
    Arc::new(encoder.finish().unwrap())
}

/// Keeps what it is given, or fails.
#[derive(Default)]
struct Kept {
    records: Mutex<Records>,
    fails: bool,
}

impl Sink for Kept {
    fn store(&self, batch: RecordBatch, stored: Stored) {
        if self.fails {
            return stored(Err(crate::store::Error::Failed("disk full".into())));
        }
        self.records.lock().extend(batch.iter().map(|(key, value)| (key.bytes().to_vec(), value.bytes().to_vec())));
        stored(Ok(()));
    }
}

fn receiver() -> Receiver {
    Receiver::new(&Env::real(), node(1), LIMIT, SHORT, SHORT)
}

/// The stream port of an offerer, and its address.
fn port(offers: &Arc<Offers>) -> NodeAddress {
    let env = Env::real();
    let listener = env.listen(([127, 0, 0, 1], 0).into()).unwrap();
    let address = NodeAddress::new(listener.local_address().unwrap());
    env.spawn(offers.clone().run(env.clone(), listener));
    address
}

/// An offerer that reads the hello, sends `bytes` and then closes or says nothing. Returns what the target said.
async fn scripted_offerer(bytes: Vec<u8>, close: bool) -> (NodeAddress, tokio::task::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = NodeAddress::new(listener.local_addr().unwrap());
    let said = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut said = vec![0; HELLO_LEN];
        stream.read_exact(&mut said).await.unwrap();
        // A target that has seen enough closes.
        let _ = stream.write_all(&bytes).await;
        if close {
            let _ = stream.shutdown().await;
        }
        let _ = stream.read_to_end(&mut said).await;
        said
    });
    (address, said)
}

/// Two ends of a connection.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

#[tokio::test]
async fn a_stream_arrives_whole() {
    let offers = Arc::new(Offers::default());
    let address = port(&offers);
    let records: Records =
        some(5000).into_iter().chain([(crate::ring::raw_key(b"long"), vec![7; LIMIT - 64])]).collect();
    let chunk = chunk(&records);
    let sink = Arc::new(Kept::default());
    let mut offer = offers.open(node(1));
    let target = receiver();
    let sending = async { send(&Env::real(), offer.taken().await.unwrap(), &chunk, SHORT).await };
    let (sent, fetched) = tokio::join!(sending, target.fetch(address, &*sink));
    sent.unwrap();
    assert_eq!(fetched.unwrap(), 5001);
    assert_eq!(*sink.records.lock(), records);
}

#[tokio::test]
async fn a_target_says_what_was_recorded() {
    let (address, said) = scripted_offerer(encoded(&some(250)), false).await;
    let own = NodeAddress::new("127.0.0.1:29801".parse().unwrap());
    let sink = Arc::new(Kept::default());
    let target = Receiver::new(&Env::real(), own, LIMIT, SHORT, SHORT);
    assert_eq!(target.fetch(address, &*sink).await.unwrap(), 250);
    let said = said.await.unwrap();
    let (hello, signs) = said.split_at(HELLO_LEN);
    assert_eq!(hello, b"\x06\x74\x69\x7f\x00\x00\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "offer.hello");
    assert_eq!(signs, b"\x90\x90\xc0", "offer.ack");
}

#[tokio::test]
async fn a_target_gives_up_on_bad_streams() {
    let whole = encoded(&some(3000));
    let half = whole[..whole.len() / 2].to_vec();
    let mut corrupt = whole.clone();
    let middle = corrupt.len() / 2;
    corrupt[middle..middle + 20].fill(0xff);
    let mut wrong_sum = whole.clone();
    *wrong_sum.last_mut().unwrap() ^= 1;
    let declared = {
        use std::io::Write;
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(9));
        zlib.write_all(b"\x92\xa8\0\0\0\0\0\0\0\0\xdb\x00\x0f\xff\x00").unwrap();
        zlib.write_all(&vec![0; 100 << 20]).unwrap();
        zlib.finish().unwrap()
    };
    let cases = [
        ("half, then closed", half.clone(), true),
        ("half, then silent", half, false),
        ("nothing", vec![], true),
        ("silent", vec![], false),
        ("damaged", corrupt, false),
        ("wrong checksum", wrong_sum, false),
        ("a bomb", declared, false),
        ("no zlib", b"GET / HTTP/1.1\r\n\r\n".to_vec(), false),
    ];
    for (what, bytes, close) in cases {
        let (address, said) = scripted_offerer(bytes, close).await;
        let sink = Arc::new(Kept::default());
        let result = tokio::time::timeout(Duration::from_secs(20), receiver().fetch(address, &*sink)).await;
        let error = result.unwrap_or_else(|_| panic!("{what}: hangs")).expect_err(what);
        println!("{what}: {error}");
        assert!(!said.await.unwrap()[HELLO_LEN..].contains(&NIL), "{what}: acknowledged");
    }
}

#[tokio::test]
async fn a_target_gives_up_on_input_that_comes_to_nothing() {
    // Empty deflate blocks, for ever: input without output.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = NodeAddress::new(listener.local_addr().unwrap());
    let dripping = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = b"\x78\x01".to_vec();
        while stream.write_all(&bytes).await.is_ok() {
            bytes = b"\x00\x00\x00\xff\xff".to_vec();
            tokio::time::sleep(SHORT / 20).await;
        }
    });
    let sink = Arc::new(Kept::default());
    let fetched = tokio::time::timeout(Duration::from_secs(10), receiver().fetch(address, &*sink)).await.unwrap();
    assert!(matches!(fetched, Err(Error::Silent(_))), "{fetched:?}");
    dripping.await.unwrap();
}

#[tokio::test]
async fn a_target_that_cannot_store_does_not_acknowledge() {
    let (address, said) = scripted_offerer(encoded(&some(10)), false).await;
    let sink = Arc::new(Kept { fails: true, ..Kept::default() });
    assert!(matches!(receiver().fetch(address, &*sink).await, Err(Error::Store(_))));
    assert_eq!(said.await.unwrap().len(), HELLO_LEN);
}

#[tokio::test]
async fn an_offerer_survives_strangers_and_garbage() {
    let offers = Arc::new(Offers::default());
    let address = port(&offers);
    let mut offer = offers.open(node(1));
    let connect = || TcpStream::connect(address.socket());
    // A stranger, garbage, half a hello, nothing: each connection is closed without a byte.
    for (hello, cut) in [(write_hello(node(2)), HELLO_LEN), ([0xff; HELLO_LEN], HELLO_LEN), (write_hello(node(1)), 9)] {
        let mut stream = connect().await.unwrap();
        stream.write_all(&hello[..cut]).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said).await;
        assert_eq!(said, b"");
    }
    let _silent = connect().await.unwrap();
    // The target itself, twice: the first has it, the second is closed.
    let mut first = connect().await.unwrap();
    first.write_all(&write_hello(node(1))).await.unwrap();
    let near = offer.taken().await.unwrap();
    let Stream::Tcp(near) = near else { panic!("a stream over TCP") };
    assert_eq!(near.peer_addr().unwrap(), first.local_addr().unwrap());
    let mut second = connect().await.unwrap();
    second.write_all(&write_hello(node(1))).await.unwrap();
    assert_eq!(second.read(&mut [0; 1]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_newer_offer_to_a_target_takes_the_place_of_the_older() {
    let offers = Arc::new(Offers::default());
    let address = port(&offers);
    let mut older = offers.open(node(1));
    let mut newer = offers.open(node(1));
    assert!(older.taken().await.is_none());
    drop(older);
    let mut target = TcpStream::connect(address.socket()).await.unwrap();
    target.write_all(&write_hello(node(1))).await.unwrap();
    assert!(newer.taken().await.is_some());
    // Nothing is left behind.
    drop(newer);
    drop(offers.open(node(2)));
    assert_eq!(format!("{offers:?}"), format!("{:?}", Offers::default()));
}

#[tokio::test]
async fn an_offerer_gives_up_on_bad_targets() {
    let chunk = chunk(&noise());
    let few = self::chunk(&some(3));
    let cases: [(&str, &Arc<Chunk>, Vec<u8>, bool); 6] = [
        ("dies half-way", &chunk, b"\x90".to_vec(), true),
        ("never reads, never speaks", &chunk, vec![], false),
        ("acknowledges too early", &chunk, vec![NIL], false),
        ("speaks garbage", &few, b"hello".to_vec(), false),
        ("babbles", &few, vec![SIGN; 1000], false),
        ("never acknowledges", &few, vec![], false),
    ];
    for (what, chunk, says, close) in cases {
        let (near, mut far) = pair().await;
        far.write_all(&says).await.unwrap();
        let far = (!close).then_some(far);
        let result =
            tokio::time::timeout(Duration::from_secs(10), send(&Env::real(), Stream::Tcp(near), chunk, SHORT)).await;
        let error = result.unwrap_or_else(|_| panic!("{what}: hangs")).expect_err(what);
        println!("{what}: {error}");
        drop(far);
    }
}

#[tokio::test]
async fn an_offerer_takes_the_recorded_acknowledgement() {
    // stream.ack: one sign of life although there are only 15 records.
    let (near, mut far) = pair().await;
    let chunk = chunk(&some(15));
    let target = async {
        let mut decoder = Decoder::new(LIMIT);
        let mut input = [0; 4096];
        while !decoder.is_ended() {
            let len = far.read(&mut input).await.unwrap();
            let mut rest = &input[..len];
            while !rest.is_empty() {
                rest = &rest[decoder.step(rest, |_, _| ()).unwrap().consumed..];
            }
        }
        far.write_all(b"\x90\xc0").await.unwrap();
    };
    let env = Env::real();
    let (sent, ()) = tokio::join!(send(&env, Stream::Tcp(near), &chunk, SHORT), target);
    sent.unwrap();
}

#[tokio::test]
async fn a_taken_stream_port_is_replaced_by_a_free_one() {
    let env = Env::real();
    let first = env.listen(([127, 0, 0, 1], 0).into()).unwrap();
    let taken = first.local_address().unwrap();
    let (second, port) = listen(&env, taken).unwrap();
    assert_eq!(second.local_address().unwrap(), std::net::SocketAddr::new(taken.ip(), port));
    assert_ne!(port, taken.port());
}
