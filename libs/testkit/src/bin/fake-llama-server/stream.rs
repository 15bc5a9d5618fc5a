//! Sending a generation, token by token, with the faults that strike on the way.

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::connection::{Answer, Connection};
use crate::engine::Engine;
use crate::faults::Faults;
use crate::generation::Generation;
use crate::lifecycle::crash;

pub(crate) fn play(engine: &Engine, connection: &mut Connection, generation: &Generation) -> io::Result<()> {
    if generation.streaming {
        play_stream(engine, connection, generation)
    } else {
        play_whole(engine, connection, generation)
    }
}

/// The same time and the same faults, but one answer at the end.
fn play_whole(engine: &Engine, connection: &mut Connection, generation: &Generation) -> io::Result<()> {
    let mut broken = false;
    for made in 0..=generation.tokens.len() as u64 {
        match strike(&engine.faults(), connection, made)? {
            Some(Blow::Malformed) => broken = true,
            Some(Blow::Error) => return connection.answer(&Answer::json(500, &told_to_fail())),
            None => {}
        }
        if made < generation.tokens.len() as u64 {
            make_token(engine, connection, made)?;
        }
    }
    let mut answer = Answer::json(200, &generation.whole());
    if broken {
        answer.body.truncate(answer.body.len() / 2);
    }
    connection.answer(&answer)
}

fn play_stream(engine: &Engine, connection: &mut Connection, generation: &Generation) -> io::Result<()> {
    let mut stream = Stream { connection, begun: false };
    for (made, token) in generation.tokens.iter().enumerate() {
        let faults = engine.faults();
        if stream.strike(&faults, made as u64)? {
            return Ok(());
        }
        make_token(engine, stream.connection, made as u64)?;
        if made == 0 {
            for frame in generation.opening(!faults.is_on("FAKE_NO_MESSAGE_START")) {
                stream.send(&faults, &frame)?;
            }
        }
        if faults.number("FAKE_PING_TOKENS").is_some_and(|every| (made as u64).is_multiple_of(every)) {
            stream.send(&faults, ":\n\n")?;
        }
        stream.send(&faults, &generation.token(token))?;
    }
    let faults = engine.faults();
    if stream.strike(&faults, generation.tokens.len() as u64)? {
        return Ok(());
    }
    let mut closing = generation.closing();
    if faults.is_on("FAKE_NO_DONE") {
        closing.pop();
    }
    for frame in closing {
        stream.send(&faults, &frame)?;
    }
    connection.end_stream()
}

/// An event stream whose head goes out with its first frame, as the real one's does.
struct Stream<'a> {
    connection: &'a mut Connection,
    begun: bool,
}

impl Stream<'_> {
    fn send(&mut self, faults: &Faults, frame: &str) -> io::Result<()> {
        if !self.begun {
            self.connection.begin_stream()?;
            self.begun = true;
        }
        let size = faults.number("FAKE_SPLIT_BYTES").map_or(frame.len(), |size| size.max(1) as usize);
        frame.as_bytes().chunks(size).try_for_each(|piece| self.connection.chunk(piece))
    }

    /// The faults after `made` tokens; `true` when the stream is over.
    fn strike(&mut self, faults: &Faults, made: u64) -> io::Result<bool> {
        match strike(faults, self.connection, made)? {
            None => Ok(false),
            Some(Blow::Malformed) => self.send(faults, "data: {\"choices\":[{\"delta\n\n").map(|()| false),
            Some(Blow::Error) => {
                self.send(faults, &format!("data: {}\n\n", told_to_fail()))?;
                self.connection.end_stream()?;
                Ok(true)
            }
        }
    }
}

/// What a fault leaves to the caller.
enum Blow {
    Malformed,
    Error,
}

/// The faults that strike when `made` tokens have been made.
fn strike(faults: &Faults, connection: &Connection, made: u64) -> io::Result<Option<Blow>> {
    let now = |knob: &str| faults.number(knob) == Some(made);
    if now("FAKE_CLOSE_AFTER_TOKENS") {
        return Err(connection.abort());
    }
    if now("FAKE_HANG_AFTER_TOKENS") {
        return Err(connection.hang());
    }
    if now("FAKE_MALFORMED_AFTER_TOKENS") {
        return Ok(Some(Blow::Malformed));
    }
    Ok(now("FAKE_ERROR_AFTER_TOKENS").then_some(Blow::Error))
}

fn make_token(engine: &Engine, connection: &Connection, made: u64) -> io::Result<()> {
    let faults = engine.faults();
    let knob = if made == 0 { "FAKE_FIRST_TOKEN_MS" } else { "FAKE_TOKEN_MS" };
    if made == 0 && faults.is_on("FAKE_WORKS") {
        work(connection, faults.millis(knob))?;
    } else {
        connection.pause(faults.millis(knob))?;
    }
    let total = engine.counters.tokens.fetch_add(1, Ordering::Relaxed) + 1;
    if engine.may_crash && faults.number("FAKE_EXIT_AFTER_TOKENS").is_some_and(|limit| total > limit) {
        crash(engine);
    }
    Ok(())
}

/// A pause with a third of a core in use.
fn work(connection: &Connection, time: Duration) -> io::Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        let busy = Instant::now() + Duration::from_millis(5);
        while Instant::now() < busy {
            std::hint::spin_loop();
        }
        connection.pause(Duration::from_millis(10))?;
    }
    Ok(())
}

fn told_to_fail() -> serde_json::Value {
    json!({"error": {"message": "the fake was told to fail", "type": "server_error", "code": 500}})
}
