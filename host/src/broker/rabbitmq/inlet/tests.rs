//! Bytes that come in pieces of any size.

use std::collections::VecDeque;

use futures_util::task::noop_waker_ref;

use super::*;

/// Gives its bytes in pieces of these sizes, with a wait before each.
struct Pieces {
    bytes: VecDeque<u8>,
    random: fastrand::Rng,
    waits: bool,
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        to: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.waits = !self.waits;
        if self.waits {
            return Poll::Pending;
        }
        let most = to.len().min(self.bytes.len());
        let count = if most > 1 {
            self.random.usize(1..=most.min(40))
        } else {
            most
        };
        for (place, byte) in to.iter_mut().zip(self.bytes.drain(..count)) {
            *place = byte;
        }
        Poll::Ready(Ok(count))
    }
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind, 0, 1], &size[..], payload, &[0xce]].concat()
}

/// Reads to the end through an inlet, into places of random size.
fn read(bytes: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut inlet = Inlet::new(Pieces {
        bytes: bytes.iter().copied().collect(),
        random: random.fork(),
        waits: false,
    });
    let mut context = Context::from_waker(noop_waker_ref());
    let mut all = Vec::new();
    loop {
        let mut place = vec![0; random.usize(1..100)];
        match Pin::new(&mut inlet).poll_read(&mut context, &mut place) {
            Poll::Ready(Ok(0)) => return all,
            Poll::Ready(Ok(count)) => all.extend(&place[..count]),
            Poll::Ready(Err(error)) => panic!("{error}"),
            Poll::Pending => {}
        }
    }
}

#[test]
fn frames_are_repaired_and_bodies_untouched_however_the_bytes_come_in() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    // Its `type` is not UTF-8; a body may look like anything.
    let properties = [
        &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9][..],
        &[0, 32, 2, 0xff, b'x'],
    ]
    .concat();
    let (mut sent, mut due) = (Vec::new(), Vec::new());
    for round in 0..50_u8 {
        let body = frame(
            3,
            &frame(HEADER, &properties).repeat(usize::from(round % 3)),
        );
        sent.extend(frame(HEADER, &properties));
        sent.extend(&body);
        sent.extend(frame(8, &[]));
        let mut repaired = frame(HEADER, &properties);
        *repaired.iter_mut().find(|byte| **byte == 0xff).unwrap() = 0x1a;
        due.extend(repaired);
        due.extend(&body);
        due.extend(frame(8, &[]));
    }
    for _ in 0..200 {
        assert!(read(&sent, &mut random) == due, "seed {seed}");
    }
}

#[test]
fn what_is_no_amqp_passes_as_it_is() {
    let mut random = fastrand::Rng::new();
    for bytes in [
        &b"AMQP\0\0\x09\x01"[..],
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ] {
        assert_eq!(read(bytes, &mut random), bytes);
    }
}
