#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const OPTIONS: AdmissionOptions = AdmissionOptions {
    connections_max: 3,
    unauthenticated_per_ip: 2,
    connections_per_ip: 2,
    handshakes_per_second_per_ip: 4,
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn accept(admission: &Arc<Admission>, address: &str) -> Result<Ticket, AdmissionError> {
    admission.handle_accept(Some(ip(address)), 0)
}

fn seat(admission: &Arc<Admission>, address: &str) -> Result<Ticket, AdmissionError> {
    let mut ticket = accept(admission, address)?;
    ticket.handle_authenticated(Class::Viewer, 0)?;
    Ok(ticket)
}

#[test]
fn an_address_has_its_share_of_sockets_that_only_ask() {
    let admission = Admission::new(OPTIONS);
    let mut first = accept(&admission, "192.0.2.1").unwrap();
    let second = accept(&admission, "192.0.2.1").unwrap();
    assert_eq!(
        accept(&admission, "192.0.2.1").unwrap_err(),
        AdmissionError::IpLimit
    );
    let _other = accept(&admission, "192.0.2.2").unwrap();
    first.handle_authenticated(Class::Requests, 0).unwrap();
    let _third = accept(&admission, "192.0.2.1").unwrap();
    drop(second);
    let _fourth = accept(&admission, "192.0.2.1").unwrap();
    assert_eq!(admission.count(Class::Asking), 3);
}

#[test]
fn ipv6_counts_by_its_network_and_mapped_ipv4_as_ipv4() {
    let check = |one: &str, other: &str, is_same| {
        let keys = [one, other].map(|address| AddressKey::of(ip(address)));
        assert_eq!(keys[0] == keys[1], is_same, "{one} {other}");
    };
    check("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", true);
    check("2001:db8:0:1::1", "2001:db8:0:2::1", false);
    check("::ffff:192.0.2.1", "192.0.2.1", true);
    check("192.0.2.1", "192.0.2.2", false);
}

#[test]
fn loopback_and_unix_sockets_are_exempt_from_the_limits_of_addresses() {
    let admission = Admission::new(AdmissionOptions {
        connections_max: 100,
        ..OPTIONS
    });
    let mut tickets = Vec::new();
    for address in [
        None,
        Some(ip("127.0.0.1")),
        Some(ip("127.8.0.1")),
        Some(ip("::1")),
    ] {
        for _ in 0..5 {
            let mut ticket = admission.handle_accept(address, 0).unwrap();
            ticket.handle_handshake(0).unwrap();
            tickets.push(admission.handle_accept(address, 0).unwrap());
            ticket.handle_authenticated(Class::Viewer, 0).unwrap();
            tickets.push(ticket);
        }
    }
    assert_eq!(admission.addresses(), 0);
}

#[test]
fn a_full_node_hears_sockets_but_gives_no_seat() {
    let admission = Admission::new(OPTIONS);
    let mut seats: Vec<_> = (1..=3)
        .map(|host| seat(&admission, &format!("192.0.2.{host}")).unwrap())
        .collect();
    let mut asking = accept(&admission, "192.0.2.9").unwrap();
    assert_eq!(
        asking.handle_authenticated(Class::Viewer, 0),
        Err(AdmissionError::NodeFull)
    );
    assert_eq!(asking.class(), Class::Asking);
    asking.handle_authenticated(Class::Requests, 0).unwrap();
    seats.pop();
    asking.handle_authenticated(Class::Publisher, 0).unwrap();
    assert_eq!(
        admission.count(Class::Viewer) + admission.count(Class::Publisher),
        3
    );
}

#[test]
fn sockets_have_a_hard_cap() {
    let admission = Admission::new(AdmissionOptions {
        unauthenticated_per_ip: 0,
        ..OPTIONS
    });
    let _tickets: Vec<_> = (0..OPTIONS.sockets_max())
        .map(|_| accept(&admission, "192.0.2.1").unwrap())
        .collect();
    assert_eq!(
        accept(&admission, "192.0.2.2").unwrap_err(),
        AdmissionError::NodeFull
    );
}

#[test]
fn an_address_has_its_share_of_seats() {
    let admission = Admission::new(OPTIONS);
    let first = seat(&admission, "192.0.2.1").unwrap();
    let _second = seat(&admission, "192.0.2.1").unwrap();
    assert_eq!(
        seat(&admission, "192.0.2.1").unwrap_err(),
        AdmissionError::IpLimit
    );
    drop(first);
    let _third = seat(&admission, "192.0.2.1").unwrap();
}

#[test]
fn handshakes_of_an_address_are_limited_in_any_second() {
    let admission = Admission::new(OPTIONS);
    let ticket = accept(&admission, "192.0.2.1").unwrap();
    for _ in 0..4 {
        ticket.handle_handshake(5_000).unwrap();
    }
    let refused = Err(AdmissionError::RateLimited {
        retry_after_ms: 250,
    });
    assert_eq!(ticket.handle_handshake(5_000), refused);
    assert_eq!(
        ticket.handle_handshake(5_249),
        Err(AdmissionError::RateLimited { retry_after_ms: 1 })
    );
    ticket.handle_handshake(5_250).unwrap();
    assert!(ticket.handle_handshake(5_250).is_err());
    accept(&admission, "192.0.2.2")
        .unwrap()
        .handle_handshake(5_250)
        .unwrap();
    drop(ticket);
    let again = accept(&admission, "192.0.2.1").unwrap();
    assert!(
        again.handle_handshake(5_250).is_err(),
        "a new socket is no new address"
    );
}

#[test]
fn behind_a_proxy_the_client_counts_once_it_is_named() {
    let admission = Admission::new(OPTIONS);
    let client = ip("192.0.2.1");
    let mut tickets: Vec<_> = (0..4)
        .map(|_| admission.handle_accept(None, 0).unwrap())
        .collect();
    tickets[0].handle_client_ip(client, 0).unwrap();
    tickets[1].handle_client_ip(client, 0).unwrap();
    tickets[1].handle_client_ip(client, 0).unwrap();
    assert_eq!(
        tickets[2].handle_client_ip(client, 0),
        Err(AdmissionError::IpLimit)
    );
    tickets[0].handle_client_ip(ip("192.0.2.2"), 0).unwrap();
    tickets[3].handle_client_ip(client, 0).unwrap();
    drop(tickets);
    assert_eq!(admission.count(Class::Asking), 0);
    assert_eq!(
        accept(&admission, "192.0.2.1").unwrap().class(),
        Class::Asking
    );
}

#[test]
fn a_draining_node_hears_sockets_and_refuses_upgrades() {
    let admission = Admission::new(OPTIONS);
    let mut before = accept(&admission, "192.0.2.1").unwrap();
    before.handle_handshake(0).unwrap();
    admission.set_draining();
    assert!(admission.is_draining());
    assert_eq!(
        before.handle_authenticated(Class::Viewer, 0),
        Err(AdmissionError::Draining)
    );
    let after = accept(&admission, "192.0.2.1").unwrap();
    assert_eq!(after.handle_handshake(0), Err(AdmissionError::Draining));
}

#[test]
fn addresses_without_sockets_are_forgotten() {
    let admission = Admission::new(OPTIONS);
    let kept = accept(&admission, "192.0.2.1").unwrap();
    for host in 0..20_000_u32 {
        let address = IpAddr::from((0x0a00_0000 + host).to_be_bytes());
        let ticket = admission.handle_accept(Some(address), 0).unwrap();
        ticket.handle_handshake(u64::from(host)).unwrap();
        assert!(admission.addresses() <= 4 * OPTIONS.sockets_max());
    }
    drop(kept);
    assert_eq!(admission.count(Class::Asking), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Accept(Option<u8>),
    ClientIp(usize, u8),
    Authenticated(usize, Class),
    Close(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let class = prop::sample::select(vec![Class::Publisher, Class::Requests, Class::Viewer]);
    let step = prop_oneof![
        4 => prop::option::of(0..3_u8).prop_map(Step::Accept),
        2 => (0..8_usize, 0..3_u8).prop_map(|(index, host)| Step::ClientIp(index, host)),
        3 => (0..8_usize, class).prop_map(|(index, class)| Step::Authenticated(index, class)),
        3 => (0..8_usize).prop_map(Step::Close),
    ];
    prop::collection::vec(step, 0..120)
}

/// What the counts should be, recounted from all that is open.
fn counted(model: &[(Option<u8>, Class)], host: u8, is_wanted: impl Fn(Class) -> bool) -> usize {
    model
        .iter()
        .filter(|(at, class)| *at == Some(host) && is_wanted(*class))
        .count()
}

proptest! {
    #[test]
    fn counts_are_those_of_the_open_sockets(steps in steps()) {
        let admission = Admission::new(OPTIONS);
        let address = |host: u8| IpAddr::from([192, 0, 2, host]);
        let is_asking = |class| class == Class::Asking;
        let mut tickets: Vec<Ticket> = Vec::new();
        let mut model: Vec<(Option<u8>, Class)> = Vec::new();
        for step in steps {
            match step {
                Step::Accept(host) => {
                    let has_room = host.is_none_or(|host| counted(&model, host, is_asking) < 2);
                    let ticket = admission.handle_accept(host.map(address), 0);
                    prop_assert_eq!(ticket.is_ok(), has_room);
                    if let Ok(ticket) = ticket {
                        tickets.push(ticket);
                        model.push((host, Class::Asking));
                    }
                }
                Step::ClientIp(index, host) if index < model.len() => {
                    let (at, class) = model[index];
                    let has_room = at == Some(host) || match class {
                        Class::Asking => counted(&model, host, is_asking) < 2,
                        Class::Requests => true,
                        _ => counted(&model, host, Class::is_seat) < 2,
                    };
                    let moved = tickets[index].handle_client_ip(address(host), 0);
                    prop_assert_eq!(moved.is_ok(), has_room);
                    model[index].0 = has_room.then_some(host);
                }
                Step::Authenticated(index, class) if index < model.len() => {
                    let (at, was) = model[index];
                    let seats = model.iter().filter(|(_, class)| class.is_seat()).count();
                    let of_host = at.map_or(0, |host| counted(&model, host, Class::is_seat));
                    let has_room = !class.is_seat() || was.is_seat() || (seats < 3 && of_host < 2);
                    let became = tickets[index].handle_authenticated(class, 0);
                    prop_assert_eq!(became.is_ok(), has_room);
                    if has_room {
                        model[index].1 = class;
                    }
                }
                Step::Close(index) if index < model.len() => {
                    drop(tickets.swap_remove(index));
                    model.swap_remove(index);
                }
                _ => {}
            }
            for class in Class::ALL {
                let expected = model.iter().filter(|(_, is)| *is == class).count();
                prop_assert_eq!(admission.count(class), expected);
            }
        }
    }
}
