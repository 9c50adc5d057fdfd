"""How due rows of any table are claimed, by any number of processes: what one has claimed no other is given for a while."""

#: A first claim lasts five seconds: by then the timer's command has been decided, or it is asked for again. Further ones last
#: longer, up to ten minutes: while nobody decides, commands must not pile up.
CLAIM = """
with due as (
    select {timer} as timer, t.{due} as due, {columns} from {table} t
    where t.{due} <= now() and not exists (
        select from timer_claims c where c.timer = {timer} and c.due = t.{due} and c.claimed_until > now())
    order by t.{due} limit $1 for update of t skip locked),
claimed as (
    insert into timer_claims (timer, due, claimed_until) select timer, due, now() + interval '5 seconds' from due
    on conflict (timer, due) do update set claims = timer_claims.claims + 1,
        claimed_until = now() + least(interval '5 seconds' * 2 ^ timer_claims.claims, interval '10 minutes')
        where timer_claims.claimed_until <= now()
    returning timer, due),
old as (delete from timer_claims where claimed_until < now() - interval '1 hour')
select due.* from due join claimed using (timer, due)
"""


def claiming(table: str, *, timer: str, due: str, columns: str) -> str:
    """A statement that claims at most `$1` of the rows of a table that are due, the longest overdue first.

    `timer` is the SQL for a row's name among all timers and `due` its column of time, `columns` what is wanted beside these
    two, all of them of the table as `t`. Names of our own: they become part of the statement.
    """
    return CLAIM.format(table=table, timer=timer, due=due, columns=columns)
