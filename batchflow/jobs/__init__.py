"""One job: plan, schedule, resume, repair."""
