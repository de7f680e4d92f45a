//! Order, overlap, coalescing, hand-over and shutdown, over real sockets.

use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};

use core::net::SocketAddr;
use core::time::Duration;

use super::acceptor::NetCore;
use super::close_reason::CloseReason;
use super::connection_limits::ConnectionLimits;
use super::net_limits::NetLimits;
use super::toy_service::{
    BIG, CLOSE, Client, ECHO, FETCH, PRODUCE, SILENT, TRAITS, Toy, WHERE, any_port, number,
    request, serve, settle,
};
use crate::runtime::core_id::CoreId;
use crate::runtime::executor::{Queue, spawn};
use crate::runtime::executor_test::{on_core, on_cores};
use crate::runtime::mesh::mesh;
use crate::runtime::socket::{Listener, Socket};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn pipelined_requests_of_all_sizes_are_answered_in_order_and_together() {
    on_core(|| async {
        let (net, toy, address) = serve(NetLimits::default());
        let mut client = Client::connect(address).await;
        let mut seed = 0x9E37_79B9_u64;
        let mut sizes = Vec::new();
        let mut bytes = Vec::new();
        for index in 0..300_u32 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let size = [0, 1, 100, 4000, 20_000, 70_000][(seed >> 33) as usize % 6];
            sizes.push(size);
            bytes.extend(request(ECHO, index, &vec![index as u8; size]));
        }
        let total_bytes = bytes.len() as u64;
        client.send_beside(bytes);
        for (index, size) in sizes.into_iter().enumerate() {
            let answer = client.answer().await.expect("an answer");
            assert_eq!((number(&answer) as usize, answer.len()), (index, 8 + size));
            assert!(answer[8..].iter().all(|byte| *byte == index as u8));
        }
        assert_eq!(*toy.started.borrow(), (0..300).collect::<Vec<_>>());
        let metrics = net.metrics();
        assert_eq!(
            (metrics.requests.get(), metrics.received_bytes.get()),
            (300, total_bytes)
        );
        assert!(
            metrics.writes.get() < 300,
            "{} writes",
            metrics.writes.get()
        );
        settle(address).await;
        assert_eq!(net.request_memory_bytes(), 0);
        net.shutdown(LONG).await;
    });
}

#[test]
fn a_burst_of_small_requests_leaves_in_one_write() {
    on_core(|| async {
        let (net, _toy, address) = serve(NetLimits::default());
        let mut client = Client::connect(address).await;
        let bytes: Vec<u8> = (0..20)
            .flat_map(|index| request(ECHO, index, b"payload"))
            .collect();
        client.send(bytes).await;
        for index in 0..20 {
            assert_eq!(number(&client.answer().await.expect("an answer")), index);
        }
        assert_eq!(
            (net.metrics().writes.get(), net.metrics().replies.get()),
            (1, 20)
        );
        net.shutdown(LONG).await;
    });
}

#[test]
fn only_overlapping_requests_start_behind_unanswered_ones() {
    on_core(|| async {
        let (net, toy, address) = serve(NetLimits::default());
        let mut client = Client::connect(address).await;
        let kinds = [PRODUCE, PRODUCE, FETCH, PRODUCE, ECHO];
        let bytes: Vec<u8> = (1..)
            .zip(kinds)
            .flat_map(|(index, kind)| request(kind, index, b"x"))
            .collect();
        client.send(bytes).await;
        toy.until_started(2).await;
        settle(address).await;
        let started = || -> Vec<u32> {
            toy.started
                .borrow()
                .iter()
                .copied()
                .filter(|number| *number != u32::MAX)
                .collect()
        };
        assert_eq!(started(), [1, 2]);
        // The second is ready first and has to wait for its turn.
        toy.open(2);
        settle(address).await;
        let writes = net.metrics().writes.get();
        toy.open(1);
        assert_eq!(number(&client.answer().await.expect("an answer")), 1);
        assert_eq!(number(&client.answer().await.expect("an answer")), 2);
        assert_eq!(net.metrics().writes.get(), writes + 1);
        settle(address).await;
        assert_eq!(started(), [1, 2, 3]);
        toy.open(3);
        assert_eq!(number(&client.answer().await.expect("an answer")), 3);
        settle(address).await;
        assert_eq!(started(), [1, 2, 3, 4]);
        toy.open(4);
        assert_eq!(number(&client.answer().await.expect("an answer")), 4);
        assert_eq!(number(&client.answer().await.expect("an answer")), 5);
        net.shutdown(LONG).await;
    });
}

#[test]
fn overlapping_requests_are_bounded() {
    on_core(|| async {
        let (net, toy, address) = serve(NetLimits {
            max_in_flight: 5,
            ..NetLimits::default()
        });
        let mut client = Client::connect(address).await;
        let bytes = (0..8)
            .flat_map(|index| request(PRODUCE, index, b"x"))
            .collect();
        client.send(bytes).await;
        toy.until_started(5).await;
        settle(address).await;
        assert_eq!(*toy.started.borrow().iter().max().expect("some"), u32::MAX);
        let started = toy
            .started
            .borrow()
            .iter()
            .filter(|number| **number < 100)
            .count();
        assert_eq!(started, 5);
        for index in 0..8 {
            while toy.started.borrow().iter().all(|number| *number != index) {
                settle(address).await;
            }
            toy.open(index);
            assert_eq!(number(&client.answer().await.expect("an answer")), index);
        }
        net.shutdown(LONG).await;
    });
}

#[test]
fn silence_and_close_keep_their_turn() {
    on_core(|| async {
        let (net, _toy, address) = serve(NetLimits::default());
        let mut client = Client::connect(address).await;
        let kinds = [SILENT, ECHO, SILENT, CLOSE, ECHO];
        let bytes = (1..)
            .zip(kinds)
            .flat_map(|(index, kind)| request(kind, index, b"x"))
            .collect();
        client.send(bytes).await;
        assert_eq!(number(&client.answer().await.expect("an answer")), 2);
        client.expect_end().await;
        settle(address).await;
        assert_eq!(net.metrics().closed(CloseReason::RefusedByService), 1);
        net.shutdown(LONG).await;
    });
}

#[test]
fn a_refused_client_that_goes_on_sending_still_gets_its_last_answer() {
    on_core(|| async {
        let (net, toy, address) = serve(NetLimits::default());
        let mut client = Client::connect(address).await;
        let both = [request(FETCH, 1, b"x"), request(CLOSE, 2, b"x")].concat();
        client.send(both).await;
        toy.until_started(1).await;
        toy.open(1);
        toy.until_started(2).await;
        client.send(request(ECHO, 3, &[0; 9000])).await;
        assert_eq!(number(&client.answer().await.expect("an answer")), 1);
        client.expect_clean_end().await;
        drop(client);
        net.shutdown(LONG).await;
        assert_eq!(net.metrics().closed(CloseReason::RefusedByService), 1);
    });
}

#[test]
fn large_answers_arrive_whole() {
    on_core(|| async {
        let (net, _toy, address) = serve(NetLimits::default());
        let mut client = Client::connect(address).await;
        let size = 9_000_000_u32;
        let answer = client.call(BIG, 1, &size.to_be_bytes()).await;
        assert_eq!(answer.len(), 8 + size as usize);
        assert!(answer[8..].iter().all(|byte| *byte == 0x5A));
        net.shutdown(LONG).await;
    });
}

#[test]
fn a_client_that_leaves_frees_what_it_held() {
    on_core(|| async {
        let (net, toy, address) = serve(NetLimits::default());
        let client = Client::connect(address).await;
        client.send(request(FETCH, 1, &[7; 5000])).await;
        toy.until_started(1).await;
        assert!(net.request_memory_bytes() >= 5000);
        drop(client);
        while net.metrics().closed(CloseReason::PeerClosed) == 0 {
            settle(address).await;
        }
        while net.request_memory_bytes() > 0 {
            settle(address).await;
        }
        net.shutdown(LONG).await;
    });
}

#[test]
fn connections_spread_over_two_cores() {
    let ports = Arc::new(Mutex::new(mesh(2, 8)));
    let counts = ConnectionLimits::new(2, 100, 100);
    let (done, is_done) = mpsc::channel::<()>();
    let (done, is_done) = (
        Arc::new(Mutex::new(Some(done))),
        Arc::new(Mutex::new(is_done)),
    );
    on_cores(2, move |core| {
        let port = {
            let mut ports = ports.lock().expect("lock");
            let at = ports
                .iter()
                .position(|port| port.core() == core)
                .expect("one each");
            ports.swap_remove(at)
        };
        let (counts, done, is_done) = (counts.clone(), done.clone(), is_done.clone());
        async move {
            let net = NetCore::start(NetLimits::default(), counts, port, Rc::new(Toy::default()));
            if core == CoreId(1) {
                while is_done.lock().expect("lock").try_recv()
                    != Err(mpsc::TryRecvError::Disconnected)
                {
                    crate::runtime::clock::sleep(Duration::from_millis(1)).await;
                }
                assert_eq!(net.metrics().taken_over.get(), 4);
                net.shutdown(LONG).await;
                return;
            }
            let listener = Listener::bind(any_port(), true).expect("bind");
            let address: SocketAddr = listener.local_addr().expect("bound");
            net.listen(listener, TRAITS);
            let mut clients = Vec::new();
            let mut places = Vec::new();
            for index in 0..8 {
                let mut client = Client::connect(address).await;
                let place = client.call(WHERE, index, &[]).await;
                places.push(u16::from_be_bytes([place[8], place[9]]));
                clients.push(client);
            }
            assert_eq!(
                places.iter().filter(|place| **place == 1).count(),
                4,
                "{places:?}"
            );
            assert_eq!(net.metrics().handed_over.get(), 4);
            for (client, place) in clients.iter_mut().zip(places) {
                let again = client.call(WHERE, 9, &[]).await;
                assert_eq!(u16::from_be_bytes([again[8], again[9]]), place);
            }
            drop(clients);
            drop(done.lock().expect("lock").take());
            net.shutdown(LONG).await;
        }
    });
}

#[test]
fn shutdown_answers_what_is_in_flight() {
    on_core(|| async {
        let (net, toy, address) = serve(NetLimits::default());
        let mut busy = Client::connect(address).await;
        let mut idle = Client::connect(address).await;
        idle.call(ECHO, 1, b"hello").await;
        // The third is not started any more.
        let bytes = (2..5).zip([PRODUCE, FETCH, ECHO]);
        busy.send(
            bytes
                .flat_map(|(index, kind)| request(kind, index, b"x"))
                .collect(),
        )
        .await;
        toy.until_started(2).await;
        let finished = Rc::new(std::cell::Cell::new(false));
        let (stopping, told) = (net.clone(), finished.clone());
        spawn(Queue::Control, async move {
            stopping.shutdown(LONG).await;
            told.set(true);
        });
        idle.expect_end().await;
        assert!(Socket::connect(address).await.is_err(), "still listening");
        assert!(!finished.get());
        toy.open(2);
        assert_eq!(number(&busy.answer().await.expect("an answer")), 2);
        busy.expect_end().await;
        net.shutdown(LONG).await;
        assert!(finished.get());
        assert_eq!(*toy.started.borrow(), [1, 2]);
        assert_eq!(net.metrics().closed(CloseReason::Shutdown), 2);
        assert_eq!((net.connections(), net.metrics().open.get()), (0, 0));
    });
}

#[test]
fn shutdown_ends_in_time_even_when_nobody_answers() {
    on_core(|| async {
        let (net, toy, address) = serve(NetLimits::default());
        let mut client = Client::connect(address).await;
        client.send(request(FETCH, 1, b"x")).await;
        toy.until_started(1).await;
        net.shutdown(Duration::from_millis(1)).await;
        assert_eq!(net.metrics().closed(CloseReason::Shutdown), 1);
        client.expect_end().await;
    });
}
