//! The dashboard as somebody sees it who presses keys: messages in, frames and effects out.

use std::time::{Duration, Instant};

use orch_core::{
    ByteCount, DesiredState, EventLevel, ExitCode, Failure, Health, ReplicaId, Status, UnixMillis,
};
use pool_manager::stats::{InstanceStats, SlotActivity, SlotState};
use pool_manager::view::{InstanceView, Slots};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::style::{Color, Modifier};

use super::model::{Effect, EventLine, LogNews, Message, Model, Picture, Step, StepKind};
use super::theme::Theme;
use super::update::update;
use super::view;
use crate::ending::Ended;
use crate::watching::Keeper;

/// A dashboard on a screen that nobody sees.
struct Scene {
    model: Model,
    terminal: Terminal<TestBackend>,
    theme: Theme,
}

impl Scene {
    fn new(width: u16, height: u16) -> Self {
        let terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        Self { model: Model::new("/home/me/models".to_owned(), None), terminal, theme: Theme::new(true) }
    }

    /// With three instances, of which one works, and one has crashed.
    fn with_three(width: u16, height: u16) -> Self {
        let mut scene = Self::new(width, height);
        scene.send(Message::Seen(Box::new(three())));
        scene
    }

    fn send(&mut self, message: Message) -> Vec<Effect> {
        update(&mut self.model, message)
    }

    fn press(&mut self, code: KeyCode) -> Vec<Effect> {
        self.send(Message::Key(KeyEvent::new(code, KeyModifiers::NONE)))
    }

    /// Each letter is a key.
    fn typed(&mut self, keys: &str) -> Vec<Effect> {
        keys.chars().flat_map(|key| self.press(KeyCode::Char(key))).collect()
    }

    fn control(&mut self, key: char) -> Vec<Effect> {
        self.send(Message::Key(KeyEvent::new(KeyCode::Char(key), KeyModifiers::CONTROL)))
    }

    fn resize(&mut self, width: u16, height: u16) {
        self.terminal.backend_mut().resize(width, height);
        self.send(Message::Resized);
    }

    fn frame(&mut self) -> String {
        let (model, theme) = (&mut self.model, self.theme);
        self.terminal.draw(|frame| view::draw(frame, model, theme)).unwrap();
        let text = self.terminal.backend().to_string();
        let lines = text.lines().map(|line| line.trim_matches('"').trim_end());
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The name of the selected row, as it is marked on the screen.
    fn selected(&mut self) -> String {
        let frame = self.frame();
        let marked: Vec<&str> = frame.lines().filter_map(|line| line.strip_prefix("> ")).collect();
        assert_eq!(marked.len(), 1, "one row is marked\n{frame}");
        marked[0].split_whitespace().next().unwrap().to_owned()
    }
}

const NOON: UnixMillis = UnixMillis(1_795_262_400_000);

fn instance(name: &str, status: Status, health: Health) -> InstanceView {
    let runs = status == Status::Running;
    InstanceView {
        name: name.to_owned(),
        replica_id: ReplicaId::FIRST,
        display_name: name.to_owned(),
        uid: String::new(),
        pid: runs.then_some(4711),
        port: 8001,
        host: "127.0.0.1".to_owned(),
        backend: "cpu".to_owned(),
        device: None,
        model: "/models/tiny.gguf".to_owned(),
        status,
        health,
        desired_state: DesiredState::Running,
        uptime_seconds: runs.then_some(65),
        restarts: 0,
        next_restart_at: None,
        slots: None,
        engine_version: None,
        node_id: "here".to_owned(),
        last_error: None,
        last_exit_code: None,
        restart_needed: false,
        denied: None,
    }
}

fn stats(name: &str) -> InstanceStats {
    let slot = |id, state, generated| SlotActivity {
        id,
        state,
        generated,
        context_used: generated + 20,
        context_size: 2048,
        tokens_per_second: (state == SlotState::Writing).then_some(41.26),
    };
    InstanceStats {
        name: name.to_owned(),
        replica_id: ReplicaId::FIRST,
        pid: Some(4711),
        status: Status::Running,
        cpu_percent: Some(98.7),
        rss_bytes: Some(ByteCount::from_mib(812)),
        vram_bytes: None,
        slots: Some(Slots { idle: 2, busy: 2 }),
        waiting: Some(0),
        tokens_per_second: Some(41.26),
        prompt_tokens_per_second: Some(0.0),
        slot_activity: vec![
            slot(0, SlotState::Idle, 0),
            slot(1, SlotState::Writing, 900),
            slot(2, SlotState::Prompt, 0),
            slot(3, SlotState::Idle, 0),
        ],
    }
}

fn three() -> Picture {
    let mut crashed = instance("coder", Status::Crashed, Health::Error);
    crashed.last_exit_code = Some(137);
    crashed.last_error = Some("out of memory\u{1b}[0m".to_owned());
    let mut chat = instance("chat", Status::Running, Health::Healthy);
    chat.slots = Some(Slots { idle: 2, busy: 2 });
    let event = |level, kind: &str, message: &str| EventLine {
        at: NOON,
        level: Some(level),
        instance: "coder".to_owned(),
        kind: kind.to_owned(),
        message: message.to_owned(),
    };
    Picture {
        keeper: Keeper::Daemon,
        rows: vec![chat, crashed, instance("embed", Status::Stopped, Health::Unknown)],
        stats: vec![stats("chat")],
        trouble: None,
        events: vec![
            event(EventLevel::Error, "gave_up", "no restart any more"),
            event(EventLevel::Warning, "crashed", "killed (137)"),
            event(EventLevel::Info, "instance_started", "pid 4711"),
        ],
        at: NOON,
    }
}

fn many(count: usize) -> Picture {
    let rows = (0..count).map(|number| {
        let status = if number % 7 == 3 { Status::Crashed } else { Status::Running };
        instance(&format!("model-{number:03}"), status, Health::Healthy)
    });
    let rows: Vec<InstanceView> = rows.collect();
    let stats = rows.iter().map(|row| stats(&row.name)).collect();
    Picture { rows, stats, ..three() }
}

fn begun(effects: &[Effect]) -> Vec<&Step> {
    let mut steps = Vec::new();
    for effect in effects {
        if let Effect::Begin(step) = effect {
            steps.push(step);
        }
    }
    steps
}

fn step(kind: StepKind, instance: &str) -> Step {
    Step { kind, instance: instance.to_owned() }
}

#[test]
fn before_the_first_look_it_says_that_it_looks() {
    assert!(Scene::new(80, 24).frame().contains("looking ..."));
}

#[test]
fn a_wide_screen_shows_every_column_slots_and_events() {
    insta::assert_snapshot!(Scene::with_three(170, 22).frame());
}

#[test]
fn an_ordinary_screen_shows_what_tells_most() {
    insta::assert_snapshot!(Scene::with_three(80, 24).frame());
}

#[test]
fn a_small_screen_shows_the_instances_alone() {
    insta::assert_snapshot!(Scene::with_three(40, 10).frame());
}

#[test]
fn no_screen_is_too_small_to_be_drawn() {
    let mut scene = Scene::with_three(80, 24);
    for keys in ["", "l", "?"] {
        scene.typed(keys);
        for (width, height) in [(1, 1), (2, 2), (3, 5), (200, 1), (1, 100), (10, 3)] {
            scene.resize(width, height);
            scene.frame();
        }
    }
}

#[test]
fn a_screen_that_changes_its_size_is_drawn_anew_and_keeps_the_selection() {
    let mut scene = Scene::with_three(170, 22);
    scene.typed("jj");
    assert_eq!(scene.selected(), "embed");
    scene.resize(40, 10);
    assert_eq!(scene.selected(), "embed");
    scene.resize(170, 22);
    assert_eq!(scene.selected(), "embed");
}

#[test]
fn a_selected_instance_that_crashed_tells_why() {
    let mut scene = Scene::with_three(80, 24);
    scene.typed("j");
    let frame = scene.frame();
    assert!(frame.contains("last error of coder\n  out of memory"), "{frame}");
    assert!(frame.contains("crashed (137)"), "{frame}");
}

#[test]
fn the_selection_moves_by_rows_and_pages_and_stops_at_the_ends() {
    let mut scene = Scene::new(80, 24);
    scene.send(Message::Seen(Box::new(many(100))));
    assert_eq!(scene.selected(), "model-000");
    scene.typed("kk");
    assert_eq!(scene.selected(), "model-000");
    scene.typed("jjj");
    scene.press(KeyCode::Up);
    scene.press(KeyCode::Down);
    assert_eq!(scene.selected(), "model-003");
    scene.press(KeyCode::PageDown);
    let page = scene.model.page;
    assert!(page > 5);
    assert_eq!(scene.selected(), format!("model-{:03}", 3 + page));
    scene.press(KeyCode::End);
    assert_eq!(scene.selected(), "model-099");
    scene.press(KeyCode::PageDown);
    scene.press(KeyCode::PageUp);
    assert_eq!(scene.selected(), format!("model-{:03}", 99 - page));
    scene.press(KeyCode::Home);
    assert_eq!(scene.selected(), "model-000");
    assert!(scene.frame().contains(&format!("1-{page} of 100")));
}

#[test]
fn the_selected_instance_stays_selected_when_others_come_before_it() {
    let mut scene = Scene::with_three(80, 24);
    scene.typed("jj");
    let mut more = three();
    more.rows.insert(0, instance("aaa", Status::Stopped, Health::Unknown));
    scene.send(Message::Seen(Box::new(more)));
    assert_eq!(scene.selected(), "embed");
}

#[test]
fn a_start_begins_at_once_and_its_outcome_is_told() {
    let mut scene = Scene::with_three(80, 24);
    let effects = scene.typed("jju");
    assert_eq!(begun(&effects), [&step(StepKind::Up, "embed")]);
    assert!(scene.frame().ends_with("starting embed ..."));
    assert!(begun(&scene.typed("u")).is_empty(), "one step at a time");
    let outcome = Ok("is ready".to_owned());
    let effects = scene.send(Message::StepEnded { step: step(StepKind::Up, "embed"), outcome });
    assert!(matches!(effects[..], [Effect::Look]));
    assert!(scene.frame().ends_with("embed is ready"));
}

#[test]
fn a_step_that_failed_says_why_and_what_to_do() {
    let mut scene = Scene::with_three(120, 24);
    scene.typed("u");
    let failure = Failure::new(ExitCode::PortInUse, "port 8001 is taken by nginx").hint("choose another");
    scene.send(Message::StepEnded { step: step(StepKind::Up, "chat"), outcome: Err(failure) });
    assert!(scene.frame().ends_with("error: port 8001 is taken by nginx (choose another)"));
    assert_eq!(begun(&scene.typed("u")).len(), 1, "it can be tried again");
}

#[test]
fn a_stop_and_a_restart_are_asked_about_and_only_y_means_yes() {
    for (key, kind, words) in [('d', StepKind::Down, "stop chat?"), ('R', StepKind::Restart, "restart chat?")]
    {
        for no in [KeyCode::Enter, KeyCode::Esc, KeyCode::Char('n'), KeyCode::Char('q'), KeyCode::Char('d')] {
            let mut scene = Scene::with_three(80, 24);
            scene.press(KeyCode::Char(key));
            assert!(scene.frame().lines().last().unwrap().starts_with(words));
            assert!(scene.press(no).is_empty(), "{no:?}");
            assert!(scene.frame().ends_with("left as it is"));
        }
        let mut scene = Scene::with_three(80, 24);
        scene.press(KeyCode::Char(key));
        assert_eq!(begun(&scene.typed("y")), [&step(kind, "chat")]);
    }
}

#[test]
fn q_quits_and_asks_first_while_steps_are_under_way() {
    let mut scene = Scene::with_three(80, 24);
    assert!(matches!(scene.typed("q")[..], [Effect::Quit(Ok(()))]));
    scene.typed("u");
    assert!(scene.typed("q").is_empty());
    assert!(scene.frame().contains("quit all the same? y/N"));
    assert!(matches!(scene.typed("y")[..], [Effect::Quit(Ok(()))]));
}

#[test]
fn ctrl_c_and_a_signal_to_end_are_interruptions_in_every_mode() {
    for keys in ["", "/", "?", "d", "l"] {
        let mut scene = Scene::with_three(80, 24);
        scene.typed(keys);
        for effects in [scene.control('c'), scene.send(Message::Terminated)] {
            let [Effect::Quit(Err(Ended::Told(code)))] = &effects[..] else { panic!("{keys}: {effects:?}") };
            assert_eq!(*code, ExitCode::Interrupted);
        }
    }
}

#[test]
fn a_filter_narrows_while_it_is_typed_and_escape_clears_it() {
    let mut scene = Scene::with_three(80, 24);
    assert!(begun(&scene.typed("/crash d")).is_empty(), "letters are letters, not steps");
    let frame = scene.frame();
    assert!(frame.contains("> coder") && !frame.contains("embed"), "{frame}");
    assert!(frame.lines().last().unwrap().starts_with("/crash d_"), "{frame}");
    scene.press(KeyCode::Backspace);
    scene.press(KeyCode::Enter);
    assert!(scene.frame().ends_with("filter: crash   (Esc clears it)"));
    assert_eq!(begun(&scene.typed("u")), [&step(StepKind::Up, "coder")], "a step is for what is shown");
    scene.press(KeyCode::Esc);
    assert!(scene.frame().contains("embed"));
    scene.typed("/nothing like this");
    assert!(scene.frame().contains("no instance fits the filter"));
    scene.control('u');
    assert!(scene.frame().contains("embed"));
}

#[test]
fn pasted_text_is_typed_into_a_filter_and_pressed_nowhere() {
    let mut scene = Scene::with_three(80, 24);
    assert!(scene.send(Message::Pasted("dyu\nq".to_owned())).is_empty());
    assert!(scene.model.under_way.is_empty() && scene.model.filter.is_empty());
    scene.typed("/");
    scene.send(Message::Pasted("em\u{1b}bed\n".to_owned()));
    assert_eq!(scene.model.filter, "embed");
}

#[test]
fn the_log_of_the_selected_instance_is_followed_and_scrolled() {
    let mut scene = Scene::with_three(80, 24);
    let effects = scene.typed("l");
    assert!(matches!(&effects[..], [Effect::FollowLog(Some(name))] if name == "chat"));
    let news = |instance: &str, fresh, lines: std::ops::Range<usize>| {
        let lines = lines.map(|line| format!("\u{1b}[32mline {line}\u{1b}[0m")).collect();
        Message::Log(LogNews { instance: instance.to_owned(), fresh, lines, problem: None })
    };
    scene.send(news("chat", true, 0..50));
    assert!(scene.frame().contains("line 49") && !scene.frame().contains("[32m"));
    scene.press(KeyCode::PageUp);
    assert!(!scene.frame().contains("line 49"));
    let before = scene.frame();
    scene.send(news("chat", false, 50..52));
    let body = |frame: &str| {
        frame.lines().filter(|it| it.starts_with("line")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(body(&scene.frame()), body(&before), "whoever reads further up is not pushed on");
    scene.press(KeyCode::PageDown);
    scene.press(KeyCode::PageDown);
    assert!(scene.frame().contains("line 51"));

    let effects = scene.typed("j");
    assert!(matches!(&effects[..], [Effect::FollowLog(Some(name))] if name == "coder"));
    scene.send(news("chat", false, 60..61));
    assert!(!scene.frame().contains("line 60"), "late lines of another log are not shown");
    assert!(matches!(scene.press(KeyCode::Esc)[..], [Effect::FollowLog(None)]));
    assert!(scene.frame().contains("events, newest first"));
}

#[test]
fn each_replica_has_a_row_and_a_log_of_its_own() {
    let mut scene = Scene::with_three(80, 24);
    let mut second = instance("chat", Status::Running, Health::Healthy);
    second.replica_id = ReplicaId(1);
    let rows = vec![instance("chat", Status::Running, Health::Healthy), second];
    scene.send(Message::Seen(Box::new(Picture { rows, ..three() })));
    assert!(scene.frame().contains("chat/1"), "{}", scene.frame());
    scene.typed("l");
    let effects = scene.typed("j");
    assert!(matches!(&effects[..], [Effect::FollowLog(Some(name))] if name == "chat/1"), "{effects:?}");
}

#[test]
fn a_log_that_cannot_be_read_says_so_in_its_pane() {
    let mut scene = Scene::with_three(80, 24);
    scene.typed("l");
    let problem = Some("permission denied".to_owned());
    let news = LogNews { instance: "chat".to_owned(), fresh: true, lines: Vec::new(), problem };
    scene.send(Message::Log(news));
    assert!(scene.frame().contains("permission denied"));
}

#[test]
fn help_lists_the_keys_and_any_key_closes_it_without_doing_anything_else() {
    let mut scene = Scene::with_three(80, 24);
    scene.typed("?");
    insta::assert_snapshot!(scene.frame());
    assert!(scene.typed("q").is_empty());
    assert!(scene.frame().contains("chat"));
}

#[test]
fn r_looks_again_and_ctrl_l_draws_anew() {
    let mut scene = Scene::with_three(80, 24);
    assert!(matches!(scene.typed("r")[..], [Effect::Look]));
    assert!(matches!(scene.control('l')[..], [Effect::Redraw]));
    assert!(matches!(scene.control('z')[..], [Effect::Suspend, Effect::Look]));
}

#[test]
fn a_key_that_is_let_go_does_nothing() {
    let mut scene = Scene::with_three(80, 24);
    let released = KeyEvent { kind: KeyEventKind::Release, ..KeyEvent::from(KeyCode::Char('q')) };
    assert!(scene.send(Message::Key(released)).is_empty());
}

#[test]
fn a_daemon_that_dies_is_told_and_what_was_seen_stays() {
    let mut scene = Scene::with_three(100, 24);
    assert!(scene.frame().contains("| daemon |"));
    scene.send(Message::Seen(Box::new(Picture { keeper: Keeper::Nobody, ..three() })));
    let frame = scene.frame();
    assert!(frame.contains("no daemon: what crashes stays down"), "{frame}");
    assert!(frame.ends_with("the daemon has gone; engines keep running"), "{frame}");
}

#[test]
fn a_look_that_fails_leaves_the_last_picture_and_says_how_old_it_is() {
    let mut scene = Scene::with_three(120, 24);
    let at = UnixMillis(NOON.0 + 12_000);
    scene.send(Message::Unseen { why: "the daemon cannot be reached".to_owned(), at });
    let frame = scene.frame();
    assert!(frame.contains("chat"), "{frame}");
    assert!(frame.ends_with("error: the daemon cannot be reached; what stands here is 12s old"), "{frame}");
    scene.send(Message::Seen(Box::new(Picture { at, ..three() })));
    assert!(!scene.frame().contains("error:"), "a good look clears it");
    scene.send(Message::Tick(UnixMillis(at.0 + 5_000)));
    assert!(scene.frame().ends_with("no news: what stands here is 5s old"));
}

#[test]
fn without_colour_nothing_is_coloured_and_every_word_is_still_there() {
    let mut scene = Scene::with_three(170, 22);
    let coloured = scene.frame();
    let has_colour = |scene: &Scene| {
        scene.terminal.backend().buffer().content().iter().any(|cell| cell.fg != Color::Reset)
    };
    assert!(has_colour(&scene));
    scene.theme = Theme::new(false);
    assert_eq!(scene.frame(), coloured);
    assert!(!has_colour(&scene));
    let marked = scene.terminal.backend().buffer().content().iter();
    assert!(marked.filter(|cell| cell.modifier.contains(Modifier::REVERSED)).count() > 100);
}

#[test]
fn a_name_cannot_steer_the_terminal() {
    let mut scene = Scene::new(80, 24);
    let mut hostile = three();
    hostile.rows[0].model = "/models/\u{1b}[2Jgone\u{7}.gguf".to_owned();
    hostile.events[0].message = "\u{1b}]0;title\u{7}".to_owned();
    scene.send(Message::Seen(Box::new(hostile)));
    assert!(!scene.frame().replace('\n', "").contains(char::is_control));
}

#[test]
fn a_hundred_instances_are_drawn_smoothly() {
    let mut scene = Scene::new(200, 60);
    let begun = Instant::now();
    for _ in 0..20 {
        scene.send(Message::Seen(Box::new(many(100))));
        scene.typed("j");
        scene.frame();
    }
    // Generous: a machine under load is slow. The usual is a few milliseconds, unoptimised.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?} for 20 frames", begun.elapsed());
}
