//! Runs beside others, and runs that nobody waits for.

use super::*;

#[tokio::test]
async fn short_runs_go_on_while_endless_ones_have_every_thread() {
    const RUNS: usize = 200;
    let sandbox = sandbox(8);
    let (echo, endless) = (
        sandbox.prepare(embedded::echo()).unwrap(),
        sandbox.prepare(embedded::endless()).unwrap(),
    );
    let (short, long) = (task("echo", "hello"), task("endless", ""));
    let neighbour = async || {
        let mut took = Vec::new();
        for _ in 0..RUNS {
            let began = Instant::now();
            done(run(&sandbox, job(&echo, &short)).await.outcome);
            took.push(began.elapsed());
        }
        took.sort();
        took
    };
    let alone = neighbour().await;
    let mut hogs: futures_util::future::JoinAll<_> =
        futures_util::future::join_all((0..4).map(|_| run(&sandbox, job(&endless, &long))));
    let beside = tokio::select! {
        took = neighbour() => took,
        ended = &mut hogs => panic!("an endless run ended: {ended:?}"),
    };
    let p99 = RUNS * 99 / 100;
    eprintln!(
        "a short run's p99: {:?} alone, {:?} beside 4 endless ones",
        alone[p99], beside[p99]
    );
}

#[tokio::test]
async fn a_dropped_run_ends_its_guest_and_frees_its_slot() {
    let sandbox = sandbox(4);
    let (echo, endless, dots) = (
        sandbox.prepare(embedded::echo()).unwrap(),
        sandbox.prepare(embedded::endless()).unwrap(),
        sandbox.prepare(embedded::dots()).unwrap(),
    );
    let (quick, long, sleepy) = (task("echo", "x"), task("endless", ""), task("dots", "."));
    for round in 0..10_000 {
        let (prepared, task) = match round % 50 {
            0 => (&endless, &long),
            1 | 2 => (&dots, &sleepy),
            _ => {
                done(run(&sandbox, job(&echo, &quick)).await.outcome);
                continue;
            }
        };
        let mut abandoned = std::pin::pin!(run(&sandbox, job(prepared, task)));
        // Polled until it has a slot, and left at some point or other of its life.
        for _ in 0..1 + round % 3 {
            assert!(is_pending(abandoned.as_mut()).await);
            tokio::task::yield_now().await;
        }
    }
    let all = (0..4).map(|_| run(&sandbox, job(&echo, &quick)));
    for finished in futures_util::future::join_all(all).await {
        done(finished.outcome);
    }
}

#[tokio::test]
async fn a_dropped_sandbox_leaves_no_run_behind() {
    let sandbox = Arc::new(sandbox(2));
    let endless = sandbox.prepare(embedded::endless()).unwrap();
    let alive = Arc::new(());
    struct Witness(#[allow(dead_code, reason = "it is held, not read")] Arc<()>);
    impl Observer for Witness {
        fn observe(&self, _: &Event<'_>) {}
    }
    let observers = Observers::new(vec![Box::new(Witness(Arc::clone(&alive)))]);
    {
        let long = task("endless", "");
        let cancel = Cancel::new();
        let mut running = std::pin::pin!(sandbox.run(job(&endless, &long), &observers, &cancel));
        assert!(is_pending(running.as_mut()).await);
    }
    drop(observers);
    drop(sandbox);
    let deadline = Instant::now() + Duration::from_secs(10);
    while Arc::strong_count(&alive) > 1 {
        assert!(Instant::now() < deadline, "the guest still runs");
        tokio::task::yield_now().await;
    }
}
