//! Peers that lie about lengths, stall, flood, or never read: they are closed for the right
//! reason, hold bounded memory, and others are served meanwhile.

use core::net::SocketAddr;
use core::time::Duration;

use super::acceptor::NetCore;
use super::close_reason::CloseReason;
use super::net_limits::NetLimits;
use super::toy_service::{BIG, Client, ECHO, FETCH, Toy, request, serve, settle};
use crate::runtime::clock::sleep;
use crate::runtime::executor_test::on_core;

const LONG: Duration = Duration::from_secs(60);
const HOSTILE: usize = 500;

/// Opens connections that announce 100 MB each and send 1 KiB of it.
async fn liars(address: SocketAddr) -> Vec<Client> {
    let mut liars = Vec::new();
    for _ in 0..HOSTILE {
        let liar = Client::connect(address).await;
        let mut bytes = 100_000_000_u32.to_be_bytes().to_vec();
        bytes.resize(1024, b'e');
        liar.send(bytes).await;
        liars.push(liar);
    }
    liars
}

async fn until(net: &NetCore<Toy>, what: impl Fn(&NetCore<Toy>) -> bool) {
    // A minute at least, so that a broken promise is a failure and not a hang.
    for _ in 0..60_000 {
        if what(net) {
            return;
        }
        sleep(Duration::from_millis(1)).await;
    }
    panic!("it never happened");
}

fn small_memory(request_memory_bytes: usize) -> NetLimits {
    NetLimits {
        max_frame_bytes: 100 << 20,
        request_memory_bytes,
        ..NetLimits::default()
    }
}

#[test]
fn announced_bytes_take_no_memory_and_others_are_served() {
    on_core(|| async {
        let (net, _toy, address) = serve(small_memory(256 << 20));
        let liars = liars(address).await;
        until(&net, |net| {
            net.metrics().received_bytes.get() >= 1024 * HOSTILE as u64
        })
        .await;
        settle(address).await;
        // 4 KiB is the smallest buffer; the rest is a read at work.
        let held = net.request_memory_bytes();
        assert!(
            held <= HOSTILE * (4 << 10),
            "{held} bytes for {HOSTILE} KiB received"
        );
        let peak = net.metrics().memory_peak_bytes.get();
        assert!(
            peak <= (HOSTILE as u64) * (4 << 10) + (64 << 10),
            "{peak} bytes at the peak"
        );
        let mut good = Client::connect(address).await;
        for index in 0..8 {
            let payload = vec![index as u8; 2 << 20];
            assert_eq!(good.call(ECHO, index, &payload).await[8..], payload[..]);
        }
        assert_eq!(net.connections(), HOSTILE + 1);
        drop(liars);
        until(&net, |net| net.connections() == 1).await;
        net.shutdown(LONG).await;
    });
}

#[test]
fn at_the_limit_the_slowest_bodies_go_and_a_good_client_stays() {
    on_core(|| async {
        let limits = NetLimits {
            max_frame_bytes: 1 << 20,
            // Room for about 380 liars; the reserve is for small requests.
            request_memory_bytes: 7 << 20,
            small_reserve_bytes: 1 << 20,
            connection_share_bytes: 5 << 20,
            address_share_bytes: 7 << 20,
            memory_wait_ms: 10,
            ..NetLimits::default()
        };
        let (net, _toy, address) = serve(limits);
        let mut liars = Vec::new();
        for _ in 0..HOSTILE * 2 {
            let liar = Client::connect(address).await;
            let mut bytes = 1_000_000_u32.to_be_bytes().to_vec();
            bytes.resize(6000, b'e');
            liar.send(bytes).await;
            liars.push(liar);
        }
        let mut good = Client::connect(address).await;
        for index in 0..4 {
            assert_eq!(good.call(ECHO, index, b"small").await[8..], *b"small");
        }
        let payload = vec![9; 500_000];
        assert_eq!(good.call(ECHO, 9, &payload).await[8..], payload[..]);
        let metrics = net.metrics();
        assert!(metrics.closed(CloseReason::Memory) > 0);
        assert!(metrics.memory_peak_bytes.get() <= 7 << 20);
        drop(liars);
        net.shutdown(LONG).await;
        assert_eq!(net.request_memory_bytes(), 0);
    });
}

#[test]
fn impossible_lengths_close_with_their_reason() {
    on_core(|| async {
        let limit = i32::try_from(NetLimits::default().max_frame_bytes).expect("fits");
        let (net, _toy, address) = serve(NetLimits::default());
        for (length, reason) in [
            (-1, CloseReason::FrameNegative),
            (i32::MIN, CloseReason::FrameNegative),
            (0, CloseReason::FrameTooShort),
            (3, CloseReason::FrameTooShort),
            (i32::MAX, CloseReason::FrameTooLarge),
            (limit + 1, CloseReason::FrameTooLarge),
        ] {
            let before = net.metrics().closed(reason);
            let mut client = Client::connect(address).await;
            // Complete requests before it are served.
            client.call(ECHO, 1, b"fine").await;
            client.send(length.to_be_bytes().to_vec()).await;
            client.expect_end().await;
            until(&net, |net| net.metrics().closed(reason) == before + 1).await;
        }
        until(&net, |net| net.request_memory_bytes() == 0).await;
        net.shutdown(LONG).await;
    });
}

#[test]
fn a_length_in_single_bytes_is_fine() {
    on_core(|| async {
        let (net, _toy, address) = serve(NetLimits::default());
        let mut client = Client::connect(address).await;
        for byte in request(ECHO, 5, b"drop by drop") {
            client.send(vec![byte]).await;
            crate::runtime::executor::yield_now().await;
        }
        assert_eq!(
            client.answer().await.expect("an answer")[8..],
            *b"drop by drop"
        );
        net.shutdown(LONG).await;
    });
}

#[test]
fn slow_bodies_and_half_prefixes_meet_their_deadline() {
    on_core(|| async {
        let limits = NetLimits {
            body_deadline_ms: 20,
            sweep_ms: 5,
            ..NetLimits::default()
        };
        let (net, _toy, address) = serve(limits);
        let mut half_body = Client::connect(address).await;
        let mut bytes = request(ECHO, 1, &[1; 100]);
        bytes.truncate(50);
        half_body.send(bytes).await;
        let mut half_prefix = Client::connect(address).await;
        half_prefix.send(vec![0, 0]).await;
        half_body.expect_end().await;
        half_prefix.expect_end().await;
        until(&net, |net| {
            net.metrics().closed(CloseReason::BodyDeadline) == 2
        })
        .await;
        net.shutdown(LONG).await;
    });
}

#[test]
fn a_trickle_is_too_slow_long_before_the_deadline() {
    on_core(|| async {
        let limits = NetLimits {
            body_grace_ms: 60,
            sweep_ms: 5,
            ..NetLimits::default()
        };
        let (net, _toy, address) = serve(limits);
        let slow = Client::connect(address).await;
        slow.send(1000_u32.to_be_bytes().to_vec()).await;
        while slow.try_send(vec![1]).await {
            sleep(Duration::from_millis(5)).await;
        }
        until(&net, |net| {
            net.metrics().closed(CloseReason::BodyDeadline) == 1
        })
        .await;
        net.shutdown(LONG).await;
    });
}

#[test]
fn a_peer_that_never_reads_is_closed_and_holds_little() {
    on_core(|| async {
        let limits = NetLimits {
            write_deadline_ms: 50,
            write_min_rate_bytes_per_s: 1 << 30,
            sweep_ms: 5,
            ..NetLimits::default()
        };
        let (net, toy, address) = serve(limits);
        let client = Client::connect(address).await;
        let size = 1_u32 << 20;
        for index in 0..1000 {
            if !client
                .try_send(request(BIG, index, &size.to_be_bytes()))
                .await
            {
                break;
            }
        }
        until(&net, |net| {
            net.metrics().closed(CloseReason::WriteStalled) == 1
        })
        .await;
        let started = toy.started.borrow().len();
        assert!(started < 20, "{started} answers of 1 MiB were made");
        net.shutdown(LONG).await;
    });
}

#[test]
fn only_the_idle_are_swept() {
    on_core(|| async {
        let limits = NetLimits {
            max_idle_ms: 20,
            sweep_ms: 5,
            ..NetLimits::default()
        };
        let (net, toy, address) = serve(limits);
        let mut waiting = Client::connect(address).await;
        waiting.send(request(FETCH, 7, b"x")).await;
        toy.until_started(1).await;
        let mut idle = Client::connect(address).await;
        idle.expect_end().await;
        assert_eq!(net.metrics().closed(CloseReason::Idle), 1);
        toy.open(7);
        assert!(waiting.answer().await.is_some());
        net.shutdown(LONG).await;
    });
}

#[test]
fn connections_are_limited_per_address_and_in_total() {
    on_core(|| async {
        for (limits, reason) in [
            (
                NetLimits {
                    max_connections_per_ip: 3,
                    ..NetLimits::default()
                },
                CloseReason::LimitPerAddress,
            ),
            (
                NetLimits {
                    max_connections: 3,
                    ..NetLimits::default()
                },
                CloseReason::LimitTotal,
            ),
        ] {
            let (net, _toy, address) = serve(limits);
            let mut held = Vec::new();
            for index in 0..3 {
                let mut client = Client::connect(address).await;
                client.call(ECHO, index, b"in").await;
                held.push(client);
            }
            let mut refused = Client::connect(address).await;
            refused.expect_end().await;
            assert_eq!(net.metrics().closed(reason), 1);
            drop(held.pop());
            until(&net, |net| net.connections() == 2).await;
            Client::connect(address)
                .await
                .call(ECHO, 9, b"in again")
                .await;
            net.shutdown(LONG).await;
        }
    });
}

#[test]
fn before_authentication_frames_are_small() {
    on_core(|| async {
        let limits = NetLimits::default();
        let counts = super::connection_limits::ConnectionLimits::new(1, 10, 10);
        let port = crate::runtime::mesh::mesh(1, 8).pop().expect("one core");
        let net = NetCore::start(limits, counts, port, std::rc::Rc::new(Toy::default()));
        let listener = crate::runtime::socket::Listener::bind(super::toy_service::any_port(), true)
            .expect("bind");
        let address = listener.local_addr().expect("bound");
        net.listen(
            listener,
            super::acceptor::ListenerTraits {
                listener: 1,
                authenticates: true,
            },
        );
        let mut client = Client::connect(address).await;
        client.call(ECHO, 1, &[1; 60_000]).await;
        client.send(request(ECHO, 2, &[1; 66_000])).await;
        client.expect_end().await;
        assert_eq!(net.metrics().closed(CloseReason::FrameTooLarge), 1);
        net.shutdown(LONG).await;
    });
}

/// A seed that a failing test prints.
fn seed() -> u64 {
    let seed = crate::runtime::random::random_u64();
    println!("seed {seed}");
    seed
}

fn size(random: &mut fastrand::Rng) -> usize {
    match random.usize(0..10) {
        0..5 => random.usize(0..200),
        5..8 => random.usize(0..20_000),
        _ => random.usize(0..300_000),
    }
}

#[test]
fn any_cutting_of_the_stream_gives_the_same_frames() {
    let seed = seed();
    on_core(move || async move {
        let mut random = fastrand::Rng::with_seed(seed);
        let (net, _toy, address) = serve(NetLimits::default());
        let mut client = Client::connect(address).await;
        let sizes: Vec<usize> = (0..150).map(|_| size(&mut random)).collect();
        let mut pieces = Vec::new();
        let mut stream: Vec<u8> = (0..)
            .zip(&sizes)
            .flat_map(|(index, size)| request(ECHO, index, &vec![index as u8; *size]))
            .collect();
        while !stream.is_empty() {
            let most = [3, 50, 5000, 100_000][random.usize(0..4)];
            let rest = stream.split_off(random.usize(1..=most).min(stream.len()));
            pieces.push(std::mem::replace(&mut stream, rest));
        }
        client.send_pieces_beside(pieces);
        for (index, size) in sizes.into_iter().enumerate() {
            let answer = client.answer().await.expect("an answer");
            assert_eq!((answer.len(), answer[7]), (8 + size, index as u8));
            assert!(
                answer[8..].iter().all(|byte| *byte == index as u8),
                "frame {index}"
            );
        }
        drop(client);
        until(&net, |net| net.request_memory_bytes() == 0).await;
        net.shutdown(LONG).await;
    });
}

/// Memory of a killed connection must not be used for another before nobody looks at it any more.
#[test]
fn bytes_of_killed_connections_never_show_in_others() {
    let seed = seed();
    on_core(move || async move {
        let mut random = fastrand::Rng::with_seed(seed);
        let (net, _toy, address) = serve(NetLimits::default());
        for _ in 0..20 {
            let mut clients = Vec::new();
            for owner in 0..12_u8 {
                let client = Client::connect(address).await;
                let mut bytes = Vec::new();
                for index in 0..4 {
                    bytes.extend(request(ECHO, index, &vec![owner; size(&mut random)]));
                }
                let doomed = owner % 3 == 0;
                if doomed {
                    bytes.truncate(random.usize(0..bytes.len()));
                }
                client.send_beside(bytes);
                if !doomed {
                    clients.push((owner, client));
                }
            }
            for (owner, mut client) in clients {
                for index in 0..4 {
                    let answer = client.answer().await.expect("an answer");
                    assert_eq!(answer[7], index);
                    assert!(
                        answer[8..].iter().all(|byte| *byte == owner),
                        "client {owner}"
                    );
                }
            }
        }
        until(&net, |net| net.connections() == 0).await;
        assert_eq!(net.request_memory_bytes(), 0);
        net.shutdown(LONG).await;
    });
}

#[test]
fn liars_do_not_occupy_the_reserve_for_small_requests() {
    on_core(|| async {
        const OPEN: usize = 6 << 20;
        let limits = NetLimits {
            max_frame_bytes: 1 << 20,
            request_memory_bytes: OPEN + (128 << 10),
            small_reserve_bytes: 128 << 10,
            connection_share_bytes: 5 << 20,
            address_share_bytes: OPEN + (128 << 10),
            memory_wait_ms: 10,
            ..NetLimits::default()
        };
        let (net, toy, address) = serve(limits);
        // Requests at work fill nearly everything but the reserve.
        let mut busy = Vec::new();
        for size in [900_000, 100_000, 20_000] {
            while net.request_memory_bytes() + size + (20 << 10) < OPEN {
                let number = u32::try_from(busy.len()).expect("few");
                let client = Client::connect(address).await;
                client.send(request(FETCH, number, &vec![0; size])).await;
                busy.push(client);
                toy.until_started(busy.len()).await;
            }
        }
        // Twice what the rest and the reserve could hold, in the smallest buffers.
        let mut liars = Vec::new();
        for _ in 0..100 {
            let liar = Client::connect(address).await;
            let mut bytes = 1_000_000_u32.to_be_bytes().to_vec();
            bytes.resize(1000, b'e');
            liar.send(bytes).await;
            liars.push(liar);
        }
        let mut small = Client::connect(address).await;
        for index in 1000..1010 {
            assert_eq!(small.call(ECHO, index, b"small").await[8..], *b"small");
        }
        until(&net, |net| net.metrics().closed(CloseReason::Memory) > 50).await;
        until(&net, |net| net.request_memory_bytes() <= OPEN).await;
        for (number, client) in (0..).zip(&mut busy) {
            toy.open(number);
            assert!(client.answer().await.is_some());
        }
        net.shutdown(LONG).await;
    });
}
