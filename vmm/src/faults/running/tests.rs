//! Rules of a plan, and such as come and go.

use super::*;
use hw::fault::Command;
use hw::{Iova, ManualClock, Pasid, StreamId};

fn running(text: &str) -> Arc<Running> {
    let plan = Some(Plan::parse(text, "plan").unwrap());
    Running::with(Rules { plan, more: Vec::new(), change: true }, Arc::new(ManualClock::default()))
}

fn read(address: u64, len: u64) -> Occasion {
    Occasion::new(FaultPoint::DmaRead, StreamId(8), Pasid::new(1))
        .at(Iova(address), len)
        .during(Some(Command { queue: 2, index: Some(5) }))
}

fn fired(running: &Running, occasions: &[Occasion]) -> Vec<bool> {
    occasions.iter().map(|occasion| running.decide(occasion).is_some()).collect()
}

#[test]
fn rule_fires_on_its_nth_occasion_or_every_nth_and_at_most_so_often() {
    let same = [read(0x1000, 8); 6];
    let rule = |when: &str| running(&format!("[[rule]]\npoint = 'dma.read'\naction = 'abort'\n{when}"));
    assert_eq!(fired(&rule("nth = 3"), &same), [false, false, true, false, false, false]);
    assert_eq!(fired(&rule("every = 2"), &same), [false, true, false, true, false, true]);
    assert_eq!(fired(&rule("every = 2\ntimes = 1"), &same), [false, true, false, false, false, false]);
    assert_eq!(fired(&rule(""), &same), [true; 6]);
    assert_eq!(fired(&rule("probability = 0"), &same), [false; 6]);
}

#[test]
fn only_occasions_that_the_rule_describes_count() {
    let rule = |which: &str| running(&format!("[[rule]]\npoint = 'dma.read'\naction = 'abort'\n{which}"));
    for (which, expected) in [
        ("device = '00:01.0'", true),
        ("device = '00:02.0'", false),
        ("pasid = 1", true),
        ("pasid = 2", false),
        ("pasid = 'none'", false),
        ("address = 0x1007", true),
        ("address = 0x1008", false),
        ("address = [0x0, 0x1000]", true),
        ("address = [0, 0xfff]", false),
        ("address = [0xffff_ffff_ffff_f000, 0xffff_ffff_ffff_ffff]", false),
        ("queue = 2", true),
        ("queue = 3", false),
        ("queue = 2\nindex = 5", true),
        ("queue = 2\nindex = 6", false),
        ("byte = 7", true),
        ("byte = 8", false),
    ] {
        assert_eq!(fired(&rule(which), &[read(0x1000, 8)]), [expected], "{which}");
    }
}

#[test]
fn plan_that_is_restored_goes_on_where_it_was_saved() {
    let text = "[[rule]]\npoint = 'dma.read'\naction = 'abort'\nevery = 3\ntimes = 2";
    let same = [read(0x1000, 8); 4];
    let first = running(text);
    assert_eq!(fired(&first, &same), [false, false, true, false]);
    let saved = first.save().unwrap();
    let second = running(&saved.text);
    second.restore(&saved).unwrap();
    assert_eq!(fired(&second, &same), [false, true, false, false]);
    assert_eq!(fired(&second, &same), [false; 4]);
    let other = |seen: &[(u64, u64)]| SavedFaults { seen: seen.to_vec(), ..saved.clone() };
    assert!(second.restore(&other(&[])).unwrap_err().contains("0 rules"));
    assert!(second.restore(&other(&[(1, 2)])).is_err());
}

#[test]
fn rules_after_the_one_that_fires_do_not_count_the_occasion() {
    let twice = "[[rule]]\npoint = 'dma.read'\naction = 'abort'\nnth = 1\n";
    let running = running(&format!("{twice}{twice}"));
    assert_eq!(fired(&running, &[read(0, 1); 3]), [true, true, false]);
    assert!(running.mentions(FaultPoint::DmaRead) && !running.mentions(FaultPoint::DmaWrite));
}

/// A machine in which rules come and go, without a plan.
fn without_a_plan() -> Arc<Running> {
    Running::with(Rules { change: true, ..Rules::default() }, Arc::new(ManualClock::default()))
}

fn rule(text: &str) -> Rule {
    Rule::parse(text).unwrap()
}

#[test]
fn rule_that_is_armed_counts_from_then_on_and_no_more_when_it_is_disarmed() {
    let running = without_a_plan();
    assert!(!running.mentions(FaultPoint::DmaRead));
    assert_eq!(fired(&running, &[read(0, 1)]), [false]);
    let id = running.arm(rule("dma.read,abort,every=2"), false).unwrap();
    assert!(running.mentions(FaultPoint::DmaRead));
    assert_eq!(fired(&running, &[read(0, 1); 4]), [false, true, false, true]);
    running.disarm(id).unwrap();
    running.disarm(id).unwrap();
    assert!(!running.mentions(FaultPoint::DmaRead));
    assert_eq!(fired(&running, &[read(0, 1); 4]), [false; 4]);
    let (listed, next) = running.list(1, 10);
    assert_eq!(
        (listed[0].id, listed[0].state, listed[0].occasions, listed[0].fired),
        (id, State::Disarmed, 4, 2)
    );
    assert_eq!((listed[0].rule.as_str(), next), ("dma.read,abort,byte=0,every=2", None));
    assert_eq!(running.disarm(id + 1), Err(FaultRefused::NoSuchRule(id + 1)));
}

#[test]
fn rules_of_a_machine_that_nobody_reaches_stay_as_they_are() {
    let plan = Plan::parse("[[rule]]\npoint = 'dma.read'\naction = 'abort'", "plan").unwrap();
    let running = Running::new(plan, Arc::new(ManualClock::default()));
    assert_eq!(running.arm(rule("msi,drop"), false), Err(FaultRefused::Fixed));
    assert_eq!(running.disarm(1), Err(FaultRefused::Fixed));
}

#[test]
fn what_is_to_happen_once_comes_before_the_plan_and_is_then_over() {
    let running = running("[[rule]]\npoint = 'dma.read'\naction = 'delay'\ndelay = '1ms'");
    let id = running.arm(Rule { times: Some(1), ..rule("dma.read,abort,address=0x1000") }, true).unwrap();
    let actions: Vec<_> = [0x2000, 0x1000, 0x1000].map(|at| running.decide(&read(at, 1))).into();
    let delay = Some(FaultAction::Delay { delay: 1_000_000 });
    assert_eq!(actions, [delay, Some(FaultAction::Abort { byte: 0 }), delay]);
    let of = |id| running.list(id, 1).0.remove(0);
    assert_eq!((of(id).state, of(id).occasions, of(id).fired), (State::Over, 1, 1));
    assert_eq!((of(1).state, of(1).occasions, of(1).line), (State::Armed, 2, Some(1)));
}

#[test]
fn rules_are_listed_in_parts_and_those_that_are_gone_make_room_for_others() {
    let running = running("[[rule]]\npoint = 'dma.read'\naction = 'abort'\nnth = 1");
    for id in 2..=MOST_RULES as u32 {
        assert_eq!(running.arm(rule("dma.read,abort,nth=2"), false), Ok(id));
    }
    assert_eq!(running.arm(rule("msi,drop"), false), Err(FaultRefused::Full));
    // The plan's is over by now, and stays.
    assert_eq!(fired(&running, &[read(0, 1)]), [true]);
    assert_eq!(running.arm(rule("msi,drop"), false), Err(FaultRefused::Full));
    running.disarm(500).unwrap();
    assert_eq!(running.arm(rule("msi,drop"), false), Ok(MOST_RULES as u32 + 1));
    let mut found = Vec::new();
    let mut from = Some(1);
    while let Some(at) = from {
        let (listed, next) = running.list(at, 300);
        found.extend(listed.iter().map(|rule| rule.id));
        from = next;
    }
    assert_eq!(found, (1..=MOST_RULES as u32 + 1).filter(|id| *id != 500).collect::<Vec<_>>());
    assert_eq!(running.report().unwrap().forgotten, 1);
}

#[test]
fn armed_rules_are_saved_with_their_numbers_and_counts() {
    let text = "[[rule]]\npoint = 'dma.write'\naction = 'abort'\n[[rule]]\npoint = 'msi'\naction = 'drop'";
    let first = running(text);
    first.arm(rule("dma.read,abort,byte=3,nth=3,name=\"a, b\""), false).unwrap();
    let gone = first.arm(rule("dma.read,abort"), false).unwrap();
    first.disarm(gone).unwrap();
    first.disarm(2).unwrap();
    first.arm(Rule { times: Some(1), ..rule("qm.cqe,drop") }, true).unwrap();
    let last = first.arm(rule("msi,drop"), false).unwrap();
    assert_eq!(fired(&first, &[read(0, 8); 2]), [false; 2]);
    let saved = first.save().unwrap();
    let second = running(&saved.text);
    second.restore(&saved).unwrap();
    assert_eq!(second.list(1, 100), first.list(1, 100));
    assert_eq!(second.save(), Some(saved.clone()));
    assert_eq!(fired(&second, &[read(0, 8); 2]), [true, false]);
    assert_eq!(second.arm(rule("msi,drop"), false), Ok(last + 1));

    let refused = |change: fn(&mut SavedFaults)| {
        let mut saved = saved.clone();
        change(&mut saved);
        running(&saved.text).restore(&saved).unwrap_err()
    };
    assert!(refused(|saved| saved.more[1].id = 3).contains("comes after"));
    assert!(refused(|saved| saved.more[0].id = 2).contains("comes after"));
    assert!(refused(|saved| saved.more[0].rule = "msi,hang".to_owned()).contains("rule 3"));
    assert!(refused(|saved| saved.more[0].seen = (1, 2)).contains("fired 2 times"));
    assert!(refused(|saved| saved.more = vec![saved.more[0].clone(); MOST_RULES]).contains("more rules"));
    assert_eq!(without_a_plan().save(), None);
}

#[test]
fn firings_that_are_remembered_are_bounded_over_all_rules() {
    let running = without_a_plan();
    let rules = (MOST_REMEMBERED_IN_ALL / MOST_REMEMBERED) as u64 + 5;
    for queue in 0..rules {
        running.arm(rule(&format!("dma.read,abort,queue={queue}")), false).unwrap();
        let occasion = read(0, 1).during(Some(Command { queue: queue as u16, index: None }));
        for _ in 0..MOST_REMEMBERED + 1 {
            running.decide(&occasion);
        }
    }
    let report = running.report().unwrap();
    assert!(report.rules.iter().all(|rule| rule.fired == MOST_REMEMBERED as u64 + 1));
    let remembered: usize = report.rules.iter().map(|rule| rule.firings.len()).sum();
    assert_eq!(remembered, MOST_REMEMBERED_IN_ALL);
}
