//! `on_both_brokers!`: tests that run whole programs, once on each kind of broker.

/// Makes one test for each broker of a function that takes a place, a broker's URL and a queue. On a
/// broker that tests share, the queue is called by the file's word, the test's name and an id.
macro_rules! on_both_brokers {
    ($file:literal: $($name:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[test] fn $name() {
                super::$name(crate::support::program::Place::new(), "sqlite:queue.db", "work");
            })*
        }
        mod on_rabbitmq {
            $(#[test] fn $name() {
                let url = crate::support::rabbitmq::shared_url();
                let (name, run) = (concat!($file, ".", stringify!($name)), scutwork::task::new_id());
                super::$name(
                    crate::support::program::Place::new(),
                    &url,
                    &format!("{name}.{run}"),
                );
            })*
        }
    };
}

pub(crate) use on_both_brokers;
