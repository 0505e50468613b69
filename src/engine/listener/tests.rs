#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use mio::{Events, Poll};
use socket2::SockRef;

use super::super::tls::Scratch;
use super::*;
use crate::engine::transport::Rest;

fn loopback() -> ListenAddress {
    "127.0.0.1:0".parse().unwrap()
}

fn port_of(acceptor: &Acceptor) -> SocketAddr {
    match acceptor.address() {
        ListenAddress::Tcp(address) => address,
        ListenAddress::Unix(_) => panic!("not TCP"),
    }
}

/// Accepts until something else than `WouldBlock` comes.
fn accept(acceptor: &mut Acceptor, now_ms: u64) -> Accept {
    let mut poll = Poll::new().unwrap();
    let mut events = Events::with_capacity(4);
    poll.registry()
        .register(acceptor, Token(0), Interest::READABLE)
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let accepted = loop {
        assert!(Instant::now() < deadline, "nothing to accept");
        poll.poll(&mut events, Some(Duration::from_millis(100)))
            .unwrap();
        match acceptor.accept(now_ms) {
            Accept::WouldBlock => {}
            accepted => break accepted,
        }
    };
    poll.registry().deregister(acceptor).unwrap();
    accepted
}

#[test]
fn cores_share_a_port_that_nobody_else_can_take() {
    let mut cores = bind(&[loopback()], 3).unwrap();
    let address = port_of(&cores[0][0]);
    assert_ne!(address.port(), 0);
    assert!(
        cores
            .iter()
            .all(|acceptors| port_of(&acceptors[0]) == address)
    );
    for cores in [1, 2] {
        let error = bind(&[ListenAddress::Tcp(address)], cores).unwrap_err();
        let message = format!("cannot listen on {address}: address in use");
        assert_eq!(error.to_string(), message);
    }
    let clients: Vec<_> = (0..60)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let mut accepted = [0; 3];
    for (acceptors, count) in cores.iter_mut().zip(&mut accepted) {
        while let Accept::Stream(..) = acceptors[0].accept(0) {
            *count += 1;
        }
    }
    assert_eq!(accepted.iter().sum::<usize>(), clients.len());
    assert!(accepted.iter().all(|count| *count > 0), "{accepted:?}");
}

#[test]
fn an_accepted_connection_has_its_options_and_carries_bytes() {
    let mut cores = bind(&[loopback()], 1).unwrap();
    let acceptor = &mut cores[0][0];
    assert!(acceptor.is_local());
    let mut client = TcpStream::connect(port_of(acceptor)).unwrap();
    let Accept::Stream(mut transport, Some(peer)) = accept(acceptor, 0) else {
        panic!("no TCP connection");
    };
    assert_eq!(peer, client.local_addr().unwrap());
    let Transport::Plain(Stream::Tcp(stream)) = &transport else {
        panic!("not TCP")
    };
    let socket = SockRef::from(stream);
    assert!(socket.tcp_nodelay().unwrap());
    assert_eq!(
        socket.tcp_notsent_lowat().unwrap(),
        limits::NOTSENT_LOWAT_BYTES
    );
    assert!(socket.nonblocking().unwrap());

    let received = transport
        .read(&mut [0; 8], &mut Scratch::default())
        .unwrap();
    assert_eq!((received.bytes, received.rest), (0, Rest::Nothing));
    let slices = [io::IoSlice::new(b"two "), io::IoSlice::new(b"slices")];
    let written = transport
        .write_vectored(&slices, &mut Scratch::default())
        .unwrap();
    assert_eq!((written.bytes, written.is_blocked), (10, false));
    transport.shutdown_write().unwrap();
    let mut received = String::new();
    client.read_to_string(&mut received).unwrap();
    assert_eq!(received, "two slices");
}

#[test]
fn ipv6_and_ipv4_of_one_port_are_two_addresses() {
    let six: ListenAddress = "[::]:0".parse().unwrap();
    // Another test may have the port on IPv4: then it is another port's turn.
    let bound = (0..20).find_map(|_| {
        let all_six = match bind(std::slice::from_ref(&six), 2) {
            Ok(all_six) => all_six,
            // A machine without IPv6 has nothing to show here.
            Err(BindError::System(..)) => return Some(None),
            Err(error) => panic!("{error}"),
        };
        let four = SocketAddr::from(([0, 0, 0, 0], port_of(&all_six[0][0]).port()));
        let all_four = bind(&[ListenAddress::Tcp(four)], 2).ok()?;
        Some(Some((all_six, all_four)))
    });
    if let Some((all_six, _)) = bound.expect("one port of twenty is free on both") {
        assert!(!all_six[0][0].is_local());
    }
}

#[test]
fn a_unix_socket_replaces_a_stale_file_and_leaves_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "the file of a listener that crashed");

    let address = ListenAddress::Unix(path.clone());
    let mut cores = bind(&[loopback(), address.clone()], 2).unwrap();
    assert_eq!(cores[0].len(), 1);
    let acceptor = &mut cores[1][1];
    assert_eq!(acceptor.address(), address);
    let mut client = UnixStream::connect(&path).unwrap();
    let Accept::Stream(mut transport, None) = accept(acceptor, 0) else {
        panic!("no unix connection");
    };
    client.write_all(b"hello").unwrap();
    let mut buf = [0; 8];
    assert_eq!(
        transport
            .read(&mut buf, &mut Scratch::default())
            .unwrap()
            .bytes,
        5
    );

    let error = bind(std::slice::from_ref(&address), 1).unwrap_err();
    assert!(matches!(error, BindError::InUse(_)), "{error}");
    assert!(path.exists(), "a refused server leaves the other's file");
    drop(cores);
    assert!(!path.exists());
}

#[test]
fn a_file_in_the_way_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    fs::write(&path, "precious").unwrap();
    let error = bind(&[ListenAddress::Unix(path.clone())], 1).unwrap_err();
    assert!(matches!(error, BindError::NotASocket(_)), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn a_shortage_pauses_and_a_broken_connection_does_not() {
    let check = |errno, expected| {
        let error = io::Error::from_raw_os_error(errno);
        assert_eq!(is_of_one_connection(&error), expected, "{error}");
    };
    const SHORTAGES: [i32; 4] = [12, 23, 24, 105]; // ENOMEM, ENFILE, EMFILE, ENOBUFS
    const OF_ONE: [i32; 4] = [1, 101, 103, 113]; // EPERM, ENETUNREACH, ECONNABORTED, EHOSTUNREACH
    SHORTAGES.into_iter().for_each(|errno| check(errno, false));
    OF_ONE.into_iter().for_each(|errno| check(errno, true));

    let mut cores = bind(&[loopback()], 1).unwrap();
    let acceptor = &mut cores[0][0];
    let _client = TcpStream::connect(port_of(acceptor)).unwrap();
    let began = acceptor.pause(1_000, ErrorKind::OutOfMemory.into());
    assert!(matches!(
        began,
        Accept::Paused {
            until_ms: 1_100,
            error: Some(_)
        }
    ));
    let goes_on = acceptor.accept(1_099);
    assert!(matches!(
        goes_on,
        Accept::Paused {
            until_ms: 1_100,
            error: None
        }
    ));
    assert!(matches!(accept(acceptor, 1_100), Accept::Stream(..)));
}

/// In a process of its own, since the limit on descriptors holds for all of a process.
#[test]
fn accepting_goes_on_when_descriptors_are_free_again() {
    const CHILD: &str = "SIGHTLINE_TEST_WITHOUT_DESCRIPTORS";
    if std::env::var_os(CHILD).is_some() {
        return run_out_of_descriptors();
    }
    let name = "engine::listener::tests::accepting_goes_on_when_descriptors_are_free_again";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{output:?}"
    );
}

fn run_out_of_descriptors() {
    let mut cores = bind(&[loopback()], 1).unwrap();
    let acceptor = &mut cores[0][0];
    let _client = TcpStream::connect(port_of(acceptor)).unwrap();
    rlimit::setrlimit(rlimit::Resource::NOFILE, 64, 64).unwrap();
    let mut files: Vec<_> = std::iter::from_fn(|| fs::File::open("/dev/null").ok()).collect();
    let Accept::Paused {
        until_ms: 100,
        error: Some(error),
    } = acceptor.accept(0)
    else {
        panic!("accepted without a descriptor");
    };
    assert_eq!(error.raw_os_error(), Some(24), "{error}");
    files.pop();
    assert!(matches!(acceptor.accept(100), Accept::Stream(..)));
}
