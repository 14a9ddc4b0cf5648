//! Faults: the mail server or the provider of text messages is away or frozen, the user service cannot be asked for addresses, the
//! notification service is killed or cannot reach its database. Customers notice nothing, and everything is delivered afterwards.

use std::slice::from_ref;
use std::time::Duration;

use roster::NOTIFICATION;

use super::cluster::replicas;
use super::deliveries::END_OF_MAIL;
use super::fault::{A_MINUTE, Expect, Fault};
use super::moment::{Moment, NOTIFICATION_CONSUMES};
use super::proxy::Mode;
use stack::supervisor::Command::{End, Kill, Start};

pub(crate) const FAULTS: &[Fault] = &[
    Fault::new("mail-server-away", "kill -9 of the mail server, away for 60 s", Expect::NoFailure, |site| {
        Box::pin(async move {
            site.cluster.send("mail", End).await?;
            site.lasts(60).await;
            site.cluster.send("mail", Start).await
        })
    })
    .settles_within(A_MINUTE)
    .short(),
    Fault::new("mail-server-frozen", "SIGSTOP of the mail server for 30 s", Expect::NoFailure, |site| {
        Box::pin(async move { site.freeze("mail", 30).await })
    })
    .settles_within(A_MINUTE),
    Fault::new("mail-unanswered", "the mail server's reply to a mail is lost, five times", Expect::NoFailure, |site| {
        Box::pin(async move {
            for _ in 0..5 {
                site.hold(&site.cluster.mail, Moment::Response(END_OF_MAIL)).await.map(drop)?;
            }
            Ok(())
        })
    })
    .settles_within(A_MINUTE)
    .short(),
    Fault::new(
        "text-messages-cut",
        "the provider of text messages is unreachable for 20 s, then fails each call for 10 s",
        Expect::NoFailure,
        |site| {
            Box::pin(async move {
                site.misbehave(from_ref(&site.cluster.sms), Mode::Cut, 20).await;
                site.misbehave(from_ref(&site.cluster.sms), Mode::Fail, 10).await;
                Ok(())
            })
        },
    )
    .settles_within(A_MINUTE),
    Fault::new(
        "contacts-unreachable",
        "the notification service cannot reach the user service for 20 s",
        Expect::NoFailure,
        |site| {
            Box::pin(async move {
                site.misbehave(from_ref(&site.cluster.contacts), Mode::Cut, 20).await;
                Ok(())
            })
        },
    )
    .settles_within(A_MINUTE),
    Fault::new(
        "contacts-slow",
        "200 ms of latency for each chunk between the notification service and the user service",
        Expect::NoFailure,
        |site| {
            Box::pin(async move {
                let slow = Mode::Slow(Duration::from_millis(200));
                site.misbehave(from_ref(&site.cluster.contacts), slow, 10).await;
                Ok(())
            })
        },
    )
    .settles_within(A_MINUTE),
    Fault::new(
        "notification-database-cut",
        "no replica of notification can reach its database for 15 s",
        Expect::NoFailure,
        |site| {
            Box::pin(async move {
                let set = |mode| {
                    let databases = replicas(NOTIFICATION).iter().filter_map(|name| site.cluster.database(name).ok());
                    databases.for_each(|proxy| proxy.set(mode));
                };
                set(Mode::Cut);
                site.lasts(15).await;
                set(Mode::Pass);
                Ok(())
            })
        },
    )
    .settles_within(A_MINUTE),
    Fault::new(
        "notification-killed",
        "kill -9 of the notification service, when it has consumed events and at ten other times",
        Expect::NoFailure,
        |site| {
            Box::pin(async move {
                for _ in 0..2 {
                    site.kill_first_at(replicas(NOTIFICATION), Moment::Commit(NOTIFICATION_CONSUMES)).await?;
                }
                for replica in replicas(NOTIFICATION).repeat(5) {
                    site.cluster.send(replica, Kill).await?;
                    site.lasts(2).await;
                }
                Ok(())
            })
        },
    )
    .settles_within(A_MINUTE)
    .short(),
];
