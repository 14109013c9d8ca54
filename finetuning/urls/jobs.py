"""Pages of fine-tuning jobs and their schedules, under `/jobs/`."""

from __future__ import annotations

from django.urls import path

from finetuning.pages import job_new, jobs, schedules

app_name = "jobs"
urlpatterns = [
    path("", jobs.job_list, name="list"),
    path("new/", job_new.new_job, name="new"),
    path("queue/pause/", jobs.pause_queue, name="pause_queue"),
    path("queue/open/", jobs.open_queue, name="open_queue"),
    path("schedules/", schedules.schedule_list, name="schedules"),
    path("schedules/new/", schedules.new_schedule, name="new_schedule"),
    path("schedules/<int:schedule_id>/", schedules.schedule, name="schedule"),
    path("schedules/<int:schedule_id>/switch/", schedules.switch_schedule, name="switch_schedule"),
    path("schedules/<int:schedule_id>/delete/", schedules.delete_schedule, name="delete_schedule"),
    path("<uuid:job_id>/", jobs.job, name="job"),
    path("<uuid:job_id>/preflight/", jobs.preflight, name="preflight"),
    path("<uuid:job_id>/start/", jobs.start, name="start"),
    path("<uuid:job_id>/cancel/", jobs.cancel, name="cancel"),
    path("<uuid:job_id>/resume/", jobs.resume, name="resume"),
    path("<uuid:job_id>/retry/", jobs.retry, name="retry"),
    path("<uuid:job_id>/move/", jobs.move, name="move"),
    path("<uuid:job_id>/promote/", jobs.promote, name="promote"),
]
