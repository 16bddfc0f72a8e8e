// The messages of vitalbridge, made from their JSON Schema by `vitalbridge contract`: see docs/contract.md.
// Further members may come in every object.

/** Why there is no number. */
export type Absent = "zero_reported" | "not_a_number" | "not_at_this_resolution" | "over_range" | "under_range" | "reserved" | "out_of_range" | "not_measured" | "measurement_failed" | "silent" | "link_lost" | "no_sensor" | "sensor_off" | "sensor_fault" | "searching" | "low_perfusion" | "low_quality" | "artifact" | "signal_lost" | "lead_off" | "cuff_too_loose" | "inputs_missing" | "withheld";

/** The client has these messages for people, or everything of a channel. */
export type AckRequest = {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  /** Their ids. */
  ids: Uuid[];
  type: "ack";
} | {
  /** One's own notifications, or alerts. */
  channel: string;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The run that numbered it; left out: this one. */
  epoch?: Epoch | null;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  /** Everything up to this one. */
  seq: Seq;
  type: "ack";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  data: {
    /** Their ids. */
    ids: Uuid[];
  } | {
    /** One's own notifications, or alerts. */
    channel: string;
    /** The run that numbered it; left out: this one. */
    epoch?: Epoch | null;
    /** Everything up to this one. */
    seq: Seq;
  };
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "ack";
};

/** Whether a signal is switched on (IEEE 11073-10207, `AlertActivation`). */
export type Activation = "on" | "paused" | "off";

/** Who looks at a patient. */
export interface Activity {
  channel: string;
  correlation_id: string;
  data: ActivityData;
  timestamp: Timestamp;
  type: "activity";
}

/** Who looks at a patient. */
export interface ActivityData {
  /** Whom. */
  patient_id: PatientId;
  /** How many. */
  viewer_count: number;
  /** These, as far as a list reaches. */
  viewers: UserId[];
}

/** The client shows this patient; without one: nobody. */
export type ActivityRequest = {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  patient_id?: PatientId | null;
  type: "activity";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client shows this patient; without one: nobody. */
  data: {
    patient_id?: PatientId | null;
  };
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "activity";
};

/** The `data` of an `alert`: the whole state of the episode after the change. */
export interface Alert {
  /** Which bridge, where the receiver hears several: `bridge`, `epoch` and `seq` name the event for ever. */
  bridge?: BridgeId | null;
  channel: string;
  /** Where the clock was not set by which it is dated: [`dated`] says so. */
  clock?: ClockNote | null;
  /** `{epoch}:{seq}`; of a message for people, its id. */
  correlation_id: string;
  data: AlertData;
  epoch: Epoch;
  /** It waited for the connection to the receiver. */
  historical?: boolean | null;
  /** The client may have had it before: [`redelivered`] says so. */
  redelivered?: boolean | null;
  seq: Seq;
  timestamp: Timestamp;
  type: "alert";
}

/** What changed in an alert's life. */
export type AlertChange = "start" | "update" | "escalate" | "latch" | "recur" | "resume" | "acknowledge" | "pause" | "end";

/** The `data` of an `alert`: the whole state of the episode after the change. */
export interface AlertData {
  absent: Absent | null;
  alert_id: Uuid;
  announced: Timestamp;
  by: string | null;
  change: AlertChange;
  condition: Condition;
  device_id: DeviceId | null;
  end_reason: EndReason | null;
  /** The numbers of the escalation routes it has taken, from 1 on. */
  escalated?: number[];
  hidden_by: Uuid | null;
  kind: AlertKind;
  limit: string;
  message: string;
  metric: Metric | null;
  mode: Mode;
  onset: Timestamp;
  patient_id: PatientId | null;
  paused_until: Timestamp | null;
  priority: Priority;
  recurrence: number;
  rule: RuleId;
  signal: Signals;
  value: Decimal | null;
}

/** What an alert is about. */
export type AlertKind = "physiological" | "technical";

/** Alerts have come, or are shown to people. */
export type AlertReceiptRequest = {
  /** Which, each with its newest event that the client has. */
  alerts: AlertSeen[];
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The run that numbered these events; left out: this one. */
  epoch?: Epoch | null;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  state: ReceiptState;
  type: "alert_receipt";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** Alerts have come, or are shown to people. */
  data: {
    /** Which, each with its newest event that the client has. */
    alerts: AlertSeen[];
    /** The run that numbered these events; left out: this one. */
    epoch?: Epoch | null;
    state: ReceiptState;
  };
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "alert_receipt";
};

/** An alert that a client has. */
export interface AlertSeen {
  alert_id: Uuid;
  seq: Seq;
}

/** Alerting works, and these alerts are present. */
export interface AlertSystem {
  /** That of the request, if it had one. */
  correlation_id: string;
  data: AlertSystemData;
  timestamp: Timestamp;
  type: "alert_system";
}

/** Alerting works, and these alerts are present. */
export interface AlertSystemData {
  /** The present alerts of your subscriptions. */
  alerts: CheckedAlertData[];
  /** How many connections show alerts to people. */
  annunciators: number;
  /** This run of the daemon. */
  epoch: Epoch;
  /** It comes this often; two missed, and there are no alarms from this bridge. */
  every_ms: number;
  /** What people have to read all the time. */
  notice: string | null;
  /** Rises by one. */
  self_check: number;
  /** The newest event when it was made. */
  through: Seq;
  /** How many alerts nobody has shown in time. */
  undelivered: number;
}

/** An event as it was pushed. */
export type AnyEvent = HealthUpdate | Alert | ChatMessage | ConversationCleared | DeviceStatus | Record | System | Audit | LimitsChanged | Observation;

/** An event as the broker gets it alone. */
export type AnyUpload = HealthUpdate | Alert | Notification | ChatMessage | ConversationCleared | DeviceStatus | Record | System | Audit | LimitsChanged | Observation | MqttInbox;

/** The envelope of a push. */
export interface Audit {
  /** Which bridge, where the receiver hears several: `bridge`, `epoch` and `seq` name the event for ever. */
  bridge?: BridgeId | null;
  channel: string;
  /** Where the clock was not set by which it is dated: [`dated`] says so. */
  clock?: ClockNote | null;
  /** `{epoch}:{seq}`; of a message for people, its id. */
  correlation_id: string;
  data: AuditData;
  epoch: Epoch;
  /** It waited for the connection to the receiver. */
  historical?: boolean | null;
  /** The client may have had it before: [`redelivered`] says so. */
  redelivered?: boolean | null;
  seq: Seq;
  timestamp: Timestamp;
  type: "audit";
}

/** What was done, for the audit trail. */
export type AuditAction = "device_bound" | "device_changed" | "device_confirmed" | "device_command" | "records_taken" | "records_deleted" | "alert_acknowledge" | "alert_pause_audio" | "alert_reset" | "limits_set" | "limits_clear" | "rule_disable" | "rule_enable" | "limits_end" | "remote_command" | "bluetooth_pair" | "bluetooth_remove" | "alert_escalated" | "notification_send" | "notification_withdraw" | "preferences_set" | "observation_set" | "token_revoke" | "uplink_resend" | "connect" | "sign_in" | "subscribe" | "close" | "connection_close" | "user_reconnect" | "user_disconnect" | "drain" | "conversation_clear";

export interface AuditData {
  action: AuditAction;
  address: string | null;
  by: string;
  device_id: DeviceId | null;
  mode: Mode;
  object: string;
  patient_id: PatientId | null;
  reason: string | null;
  result: AuditResult;
  source_id: SourceId | null;
}

/** How it ended, for the audit trail. */
export type AuditResult = "done" | "refused" | "failed";

/** A token was refused; the connection is closed. */
export interface AuthError {
  /** That of the request, if it had one. */
  correlation_id: string;
  data: AuthErrorData;
  timestamp: Timestamp;
  type: "auth_error";
}

/** A token was refused; the connection is closed. */
export interface AuthErrorData {
  /** For programs. */
  code: string;
  /** For people. */
  message: string;
  /** The same token may be taken later. */
  retryable: boolean;
}

/** Signs in, or goes on with a newer token of the same user. */
export type AuthenticateRequest = {
  /** What the client calls itself, for those who manage connections. */
  client?: string | null;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  /** A JSON Web Token. */
  token: string;
  type: "authenticate";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** Signs in, or goes on with a newer token of the same user. */
  data: {
    /** What the client calls itself, for those who manage connections. */
    client?: string | null;
    /** A JSON Web Token. */
    token: string;
  };
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "authenticate";
};

/** A token was taken. */
export interface Authenticated {
  /** That of the request, if it had one. */
  correlation_id: string;
  data: AuthenticatedData;
  timestamp: Timestamp;
  type: "authenticated";
}

/** A token was taken. */
export interface AuthenticatedData {
  /** When the token ends. */
  expires_at: Timestamp;
  /** What the user is. */
  role: Role;
  /** Whose it is. */
  user_id: UserId;
}

/** The clock of a bridge. */
export interface BirthClock {
  /** How monotonic time becomes wall time. */
  epoch: ClockEpoch;
  /** Who says so; null if nobody does. */
  source: "operating_system" | "hardware_clock" | "configuration" | null;
  /** The same, and from where. */
  state: ClockState;
  /** Whether it is set; null if nobody knows. */
  synchronised: boolean | null;
  /** How far it may be off; null if nobody knows. */
  uncertainty_ms: number | null;
}

/** The `data` of `birth`. */
export interface BirthData {
  /** Its clock. */
  clock: BirthClock;
  /** The SHA-256 of its configuration. */
  config_hash: string | null;
  /** Its sources; null if they did not fit. */
  devices: KnownDevice[] | null;
  /** What did not fit into a packet of the broker. */
  left_out?: string[] | null;
  /** The schema of its messages. */
  schema: string;
  /** The limits in force of each patient; null if they are unknown or did not fit. */
  thresholds: { [name: string]: unknown } | null;
  /** The version of the bridge. */
  version: string;
}

/** What a patient breathes. */
export type Breathing = "air" | "oxygen";

/** What a person entered. */
export type BreathingOrUnknown = Breathing | Unknown;

/** This daemon, among all that report to one backend. */
export type BridgeId = string;

/** What somebody wrote in a room. The first three members are those of older clients. */
export interface ChatMessage {
  /** Which bridge, where the receiver hears several: `bridge`, `epoch` and `seq` name the event for ever. */
  bridge?: BridgeId | null;
  channel: string;
  /** Where the clock was not set by which it is dated: [`dated`] says so. */
  clock?: ClockNote | null;
  /** `{epoch}:{seq}`; of a message for people, its id. */
  correlation_id: string;
  data: ChatMessageData;
  epoch: Epoch;
  /** It waited for the connection to the receiver. */
  historical?: boolean | null;
  /** The client may have had it before: [`redelivered`] says so. */
  redelivered?: boolean | null;
  seq: Seq;
  timestamp: Timestamp;
  type: "chat_message";
}

/** What somebody wrote in a room. The first three members are those of older clients. */
export interface ChatMessageData {
  conversation_id: string;
  message: string;
  message_id: Uuid;
  sender: string;
  /** The room, as older clients name it. */
  session_id: string;
  user_id: UserId;
}

/** A present alert. */
export interface CheckedAlertData {
  /** Which. */
  alert_id: Uuid;
  /** How far it has come; null where nothing is asked for. */
  delivery: DeliveryState | null;
  /** Its newest event. */
  seq: Seq;
}

/** What was written in a room before is shown no more. */
export type ClearConversationRequest = {
  conversation_id: RoomName;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** To nobody; false if left out: not to this user. */
  everybody?: boolean | null;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "clear_conversation";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** To nobody; false if left out: not to this user. */
  everybody?: boolean | null;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  session_id: RoomName;
  type: "clear_conversation";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  data: {
    conversation_id: RoomName;
    /** To nobody; false if left out: not to this user. */
    everybody?: boolean | null;
  } | {
    /** To nobody; false if left out: not to this user. */
    everybody?: boolean | null;
    session_id: RoomName;
  };
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "clear_conversation";
};

/** What a client may say. */
export type ClientMessage = AuthenticateRequest | RefreshRequest | SubscribeRequest | UnsubscribeRequest | HistoryRequest | AlertReceiptRequest | AckRequest | CommandRequest | SetPreferencesRequest | GetPreferencesRequest | PingRequest | HeartbeatRequest | PongRequest | JoinRoomRequest | JoinSessionRequest | LeaveRoomRequest | LeaveSessionRequest | MessageRequest | SendMessageRequest | TypingRequest | UserTypingRequest | ClearConversationRequest | GetConversationHistoryRequest | MarkReadRequest | ActivityRequest;

/** How the monotonic time of one boot becomes wall time. */
export interface ClockEpoch {
  /** The boot. */
  boot: string;
  /** Wall time less monotonic time, in ms. */
  offset_ms: number;
}

/** What is known of a clock that was not set. */
export interface ClockNote {
  /** False: nobody had set it, and nobody has since in the same boot. Null: nobody can tell. */
  synced: boolean | null;
}

/** What is known of the clock. */
export type ClockState = "synchronised" | "trusted" | "hardware" | "unsynchronised" | "unknown";

/** The connection is closed with this code after this frame. */
export interface Closing {
  /** That of the request, if it had one. */
  correlation_id: string;
  data: ClosingData;
  timestamp: Timestamp;
  type: "closing";
}

/** The connection is closed with this code after this frame. */
export interface ClosingData {
  /** The close code. */
  code: number;
  /** Its name. */
  reason: string;
  /** The same client may come back, with a new token after 41xx. */
  reconnect: boolean;
  /** It should wait this long. */
  retry_after_ms: number;
}

/** What a person wants done. */
export type CommandRequest = {
  alert_id: Uuid;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The newest event of the alert that the person saw. */
  expected_seq: Seq;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  name: "alert.acknowledge";
  type: "command";
} | {
  alert_id: Uuid;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  expected_seq?: Seq | null;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  name: "alert.pause_audio";
  /** 120 if left out. */
  seconds?: number | null;
  type: "command";
} | {
  alert_id: Uuid;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  expected_seq?: Seq | null;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  name: "alert.reset";
  type: "command";
} | {
  above?: number | null;
  at_least?: number | null;
  at_most?: number | null;
  below?: number | null;
  clear?: unknown;
  clear_delay?: string | null;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  delay?: string | null;
  /** Until when. */
  expires: string;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  name: "limits.set";
  patient_id: PatientId;
  /** Why. */
  reason: string;
  rule: RuleId;
  type: "command";
  /** As in a rule file. The four limits may stand beside the other members instead. */
  when?: unknown;
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  name: "limits.clear";
  patient_id: PatientId;
  reason?: string | null;
  rule: RuleId;
  type: "command";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  name: "rule.disable";
  patient_id: PatientId;
  /** Why. */
  reason: string;
  rule: RuleId;
  type: "command";
  /** Until when. */
  until: string;
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  name: "rule.enable";
  patient_id: PatientId;
  reason?: string | null;
  rule: RuleId;
  type: "command";
} | {
  consciousness?: ConsciousnessOrUnknown | null;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  name: "observation.set";
  oxygen?: BreathingOrUnknown | null;
  patient_id: PatientId;
  type: "command";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  name: "device.confirm";
  serial_number: string;
  source_id: SourceId;
  type: "command";
} | {
  command: string;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  name: "device.command";
  source_id: SourceId;
  type: "command";
} | {
  /** When; now if left out. */
  at?: string | null;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** It is of no use any more after this. */
  expires?: string | null;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  kind: SentKind;
  message: string;
  name: "notification.send";
  patient?: PatientId | null;
  /** `medium` if left out. */
  priority?: Priority | null;
  roles?: Role[] | null;
  title: string;
  type: "command";
  users?: UserId[] | null;
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  name: "notification.withdraw";
  notification_id: Uuid;
  type: "command";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  mute: NotificationKind[];
  name: "preferences.set";
  type: "command";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  epoch: Epoch;
  first_seq: number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  last_seq: number;
  name: "uplink.resend";
  type: "command";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  data: {
    alert_id: Uuid;
    /** The newest event of the alert that the person saw. */
    expected_seq: Seq;
    name: "alert.acknowledge";
  } | {
    alert_id: Uuid;
    expected_seq?: Seq | null;
    name: "alert.pause_audio";
    /** 120 if left out. */
    seconds?: number | null;
  } | {
    alert_id: Uuid;
    expected_seq?: Seq | null;
    name: "alert.reset";
  } | {
    above?: number | null;
    at_least?: number | null;
    at_most?: number | null;
    below?: number | null;
    clear?: unknown;
    clear_delay?: string | null;
    delay?: string | null;
    /** Until when. */
    expires: string;
    name: "limits.set";
    patient_id: PatientId;
    /** Why. */
    reason: string;
    rule: RuleId;
    /** As in a rule file. The four limits may stand beside the other members instead. */
    when?: unknown;
  } | {
    name: "limits.clear";
    patient_id: PatientId;
    reason?: string | null;
    rule: RuleId;
  } | {
    name: "rule.disable";
    patient_id: PatientId;
    /** Why. */
    reason: string;
    rule: RuleId;
    /** Until when. */
    until: string;
  } | {
    name: "rule.enable";
    patient_id: PatientId;
    reason?: string | null;
    rule: RuleId;
  } | {
    consciousness?: ConsciousnessOrUnknown | null;
    name: "observation.set";
    oxygen?: BreathingOrUnknown | null;
    patient_id: PatientId;
  } | {
    name: "device.confirm";
    serial_number: string;
    source_id: SourceId;
  } | {
    command: string;
    name: "device.command";
    source_id: SourceId;
  } | {
    /** When; now if left out. */
    at?: string | null;
    /** It is of no use any more after this. */
    expires?: string | null;
    kind: SentKind;
    message: string;
    name: "notification.send";
    patient?: PatientId | null;
    /** `medium` if left out. */
    priority?: Priority | null;
    roles?: Role[] | null;
    title: string;
    users?: UserId[] | null;
  } | {
    name: "notification.withdraw";
    notification_id: Uuid;
  } | {
    mute: NotificationKind[];
    name: "preferences.set";
  } | {
    epoch: Epoch;
    first_seq: number;
    last_seq: number;
    name: "uplink.resend";
  };
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "command";
};

/** The answer to a command over the broker. */
export type CommandResultData = DoneData | RefusedData;

/** A reading in `vitals.v1.compact`: [seq, stream, value, received, sent, more]. */
export type CompactReading = [Seq, number, Decimal | Absent | null, number, number, ({ [name: string]: unknown })?];

/** What was said in a room was taken, or the room was cleared. */
export interface Complete {
  /** That of the request, if it had one. */
  correlation_id: string;
  data: CompleteData;
  timestamp: Timestamp;
  type: "complete";
}

/** What was said in a room was taken, or the room was cleared. */
export interface CompleteData {
  /** The room. */
  conversation_id: string;
  /** That event is on disk. */
  durable: boolean;
  /** The message that it made; of what was cleared there is none. */
  message_id?: Uuid | null;
  /** True. */
  ok: true;
  /** The number of the event. */
  seq: Seq;
  /** The room, as older clients name it. */
  session_id: string;
}

/** Parts of a composite value, in the unit of the whole. */
export interface Components {
  /** The lowest pressure in a beat. */
  diastolic: Decimal | null;
  /** The mean over a beat. */
  mean: Decimal | null;
  /** The highest pressure in a beat. */
  systolic: Decimal | null;
}

export interface Condition {
  presence: ConditionPresence;
}

/** Whether the alert's condition exists. Unknown is not normal. */
export type ConditionPresence = "true" | "false" | "unknown";

/** Level of consciousness (ACVPU). */
export type Consciousness = "A" | "C" | "V" | "P" | "U";

/** What a person entered. */
export type ConsciousnessOrUnknown = Consciousness | Unknown;

/** What was written in a room before is shown no more. */
export interface ConversationCleared {
  /** Which bridge, where the receiver hears several: `bridge`, `epoch` and `seq` name the event for ever. */
  bridge?: BridgeId | null;
  channel: string;
  /** Where the clock was not set by which it is dated: [`dated`] says so. */
  clock?: ClockNote | null;
  /** `{epoch}:{seq}`; of a message for people, its id. */
  correlation_id: string;
  data: ConversationClearedData;
  epoch: Epoch;
  /** It waited for the connection to the receiver. */
  historical?: boolean | null;
  /** The client may have had it before: [`redelivered`] says so. */
  redelivered?: boolean | null;
  seq: Seq;
  timestamp: Timestamp;
  type: "conversation_cleared";
}

/** What was written in a room before is shown no more. */
export interface ConversationClearedData {
  conversation_id: string;
  /** To nobody; else not to this user. */
  everybody: boolean;
  /** The room, as older clients name it. */
  session_id: string;
  /** Who cleared it. */
  user_id: UserId;
}

/** A page of a conversation. */
export interface ConversationData {
  /** The room. */
  conversation_id: string;
  /** What was written, oldest first. */
  messages: ConversationLine[];
  /** Ask again with this as `before` for what is older; null: there is nothing older. */
  next: Seq | null;
  /** The room, as older clients name it. */
  session_id: string;
}

/** A page of a conversation. */
export interface ConversationHistory {
  /** That of the request, if it had one. */
  correlation_id: string;
  data: ConversationData;
  timestamp: Timestamp;
  type: "conversation_history";
}

/** A message as a page of a conversation has it. */
export interface ConversationLine {
  conversation_id: string;
  epoch: Epoch;
  message: string;
  message_id: Uuid;
  sender: string;
  seq: Seq;
  /** The room, as older clients name it. */
  session_id: string;
  timestamp: Timestamp;
  user_id: UserId;
}

/** The user has read a room up to an event, on some client. */
export interface ConversationRead {
  channel: string;
  correlation_id: string;
  data: ReadData;
  timestamp: Timestamp;
  type: "conversation_read";
}

/** A number with the sensor's own digits: 37.0 is not 37. */
export type Decimal = number;

/** How readings come. */
export type Delivery = DeliveryMode | DeliveryMembers;

/** How readings come, with what belongs to it. */
export type DeliveryMembers = {
  mode: "all";
} | {
  mode: "latest";
} | {
  /** Smaller changes are not sent, in the metric's unit. */
  deadband?: number | null;
  /** At most so many readings of a stream a second. */
  max_rate_hz: number;
  mode: "sampled";
};

/** How readings come. */
export type DeliveryMode = "all" | "latest";

/** How far an alert that asks for attention has come. */
export type DeliveryState = "waiting" | "delivered" | "shown" | "undelivered";

/** What is computed here from a composite value, in the unit of the whole. It stands apart from what the device said. */
export interface Derived {
  /** The mean pressure, where the device gives none: (systolic + 2 diastolic) / 3. */
  mean?: Decimal | null;
  /** Systolic minus diastolic of the same measurement. */
  pulse_pressure?: Decimal | null;
}

/** One sensor or monitor. */
export type DeviceId = string;

/** The envelope of a push. */
export interface DeviceStatus {
  /** Which bridge, where the receiver hears several: `bridge`, `epoch` and `seq` name the event for ever. */
  bridge?: BridgeId | null;
  channel: string;
  /** Where the clock was not set by which it is dated: [`dated`] says so. */
  clock?: ClockNote | null;
  /** `{epoch}:{seq}`; of a message for people, its id. */
  correlation_id: string;
  data: SourceData;
  epoch: Epoch;
  /** It waited for the connection to the receiver. */
  historical?: boolean | null;
  /** The client may have had it before: [`redelivered`] says so. */
  redelivered?: boolean | null;
  seq: Seq;
  timestamp: Timestamp;
  type: "device_status";
}

/** A topic that says whether the device can be heard. */
export interface DiscoveredAvailability {
  /** Which: that of the bridge's `status`. */
  topic: string;
  /** Takes `online` or `offline` out of the message. */
  value_template: string;
}

/** Something that Home Assistant shows. */
export type DiscoveredComponent = {
  /** A class whose units Home Assistant knows as this bridge writes them. */
  device_class?: string | null;
  /** The number is unknown after so many seconds without a message on the topic. */
  expire_after: number;
  /** For people. */
  name: string;
  platform: "sensor";
  /** `measurement`. */
  state_class: "measurement";
  /** Where the number comes. */
  state_topic: string;
  /** Unique in all of Home Assistant, for ever. */
  unique_id: string;
  /** The unit as this bridge writes it. */
  unit_of_measurement: string;
  /** Takes the number out of the message: `None` where it is not known, nothing where the message is about another. */
  value_template: string;
} | {
  /** `connectivity`. */
  device_class: string;
  /** `diagnostic`. */
  entity_category: string;
  /** For people. */
  name: string;
  platform: "binary_sensor";
  /** That of the bridge's `status`. */
  state_topic: string;
  /** Unique in all of Home Assistant, for ever. */
  unique_id: string;
  /** Makes `ON` or `OFF` of the message. */
  value_template: string;
};

/** A device of Home Assistant: a patient with all sensors, or the bridge. */
export interface DiscoveredDevice {
  /** Documents with the same identifiers are about one device. */
  identifiers: string[];
  /** Who made it. */
  manufacturer: string;
  /** For people. A patient of a demo or a test is called so. */
  name: string;
  /** Of the bridge: its version. */
  sw_version?: string | null;
  /** Of a patient: the identifier of the bridge. */
  via_device?: string | null;
}

/** The program that wrote the document. */
export interface DiscoveryOrigin {
  /** Its name. */
  name: string;
  /** Its version. */
  sw_version: string;
}

/** It was done. */
export interface DoneData {
  /** That event is on disk. */
  durable: boolean;
  /** True. */
  ok: true;
  /** The number of the event that it made. */
  seq: Seq;
}

/** Messages of one user that found no room, and that the user has not been told of. */
export interface Dropped {
  /** How many. */
  count: number;
  /** How many of them had priority high. */
  high: number;
  /** The identity of the message that will say so. */
  id: string;
}

/** An early warning score and what it is made of. */
export interface EarlyWarningData {
  /** The risk, if what is missing cannot change it. */
  band: Risk | null;
  band_min: Risk;
  complete: boolean;
  inputs: Input[];
  missing: Parameter[];
  score_max: number;
  score_min: number;
  single_3: boolean;
  spo2_scale: number;
}

/** Why an alert ended. */
export type EndReason = "condition_cleared" | "reset" | "disabled" | "unassigned";

/** What a person entered, and how long it holds. */
export interface EnteredBreathingData {
  at: Timestamp;
  by: string;
  until: Timestamp;
  value: Breathing;
}

/** What a person entered, and how long it holds. */
export interface EnteredConsciousnessData {
  at: Timestamp;
  by: string;
  until: Timestamp;
  value: Consciousness;
}

/** One run of the daemon. `(epoch, seq)` names an event for ever. */
export type Epoch = string;

/** A message could not be answered. What the client sent is never echoed. */
export interface Error {
  /** That of the request, if it had one. */
  correlation_id: string;
  data: ErrorData;
  timestamp: Timestamp;
  type: "error";
}

/** A message could not be answered. What the client sent is never echoed. */
export interface ErrorData {
  /** For programs. */
  code: string;
  /** For people. */
  message: string;
  /** The same message may be taken later. */
  retryable: boolean;
  /** What it is about. */
  scope: "request" | "subscription" | "connection";
}

/** Tags of events, each with one value or with a list of them. */
export interface Filter {
  device_id?: OneOrMoreTagText;
  kind?: OneOrMoreAlertKind;
  metric?: OneOrMoreMetric;
  mode?: OneOrMoreMode;
  patient_id?: OneOrMoreTagText;
  priority?: OneOrMorePriority;
  quality?: OneOrMoreQuality;
  source_id?: OneOrMoreTagText;
  ward?: OneOrMoreTagText;
}

/** Readings were skipped because the client was slow, or are neither on disk nor in memory. */
export interface Gap {
  /** That of the request, if it had one. */
  correlation_id: string;
  data: GapData;
  timestamp: Timestamp;
  type: "gap";
}

/** Readings were skipped because the client was slow, or are neither on disk nor in memory. */
export interface GapData {
  /** The run that numbered them. */
  epoch: Epoch;
  /** The first of them. */
  from: Seq;
  /** How many. */
  skipped: number;
  /** The same of each stream; of none where nobody knows what they were. */
  streams: GapStreamData[];
  /** The last of them; others may lie between that came. */
  to: Seq;
}

/** What was skipped of one stream. */
export interface GapStreamData {
  /** Its channel. */
  channel: string;
  /** The first of them. */
  from: Seq;
  /** How many. */
  skipped: number;
  /** The last of them. */
  to: Seq;
}

/** Asks for a page of what was written in a room. */
export type GetConversationHistoryRequest = {
  /** Before this event: the `next` of the page before. */
  before?: Seq | null;
  conversation_id: RoomName;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  /** At most so many messages; 50 if left out. */
  limit?: number | null;
  type: "get_conversation_history";
} | {
  /** Before this event: the `next` of the page before. */
  before?: Seq | null;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  /** At most so many messages; 50 if left out. */
  limit?: number | null;
  session_id: RoomName;
  type: "get_conversation_history";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  data: {
    /** Before this event: the `next` of the page before. */
    before?: Seq | null;
    conversation_id: RoomName;
    /** At most so many messages; 50 if left out. */
    limit?: number | null;
  } | {
    /** Before this event: the `next` of the page before. */
    before?: Seq | null;
    /** At most so many messages; 50 if left out. */
    limit?: number | null;
    session_id: RoomName;
  };
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "get_conversation_history";
};

/** Asks what one is told of. */
export type GetPreferencesRequest = {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "get_preferences";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** Asks what one is told of. */
  data: { [name: string]: unknown };
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "get_preferences";
};

/** The `data` of a `health_update`. `vitalbridge decode` prints the same without the members that need a source. */
export interface HealthUpdate {
  /** Which bridge, where the receiver hears several: `bridge`, `epoch` and `seq` name the event for ever. */
  bridge?: BridgeId | null;
  channel: string;
  /** Where the clock was not set by which it is dated: [`dated`] says so. */
  clock?: ClockNote | null;
  /** `{epoch}:{seq}`; of a message for people, its id. */
  correlation_id: string;
  data: ReadingData;
  epoch: Epoch;
  /** It waited for the connection to the receiver. */
  historical?: boolean | null;
  /** The client may have had it before: [`redelivered`] says so. */
  redelivered?: boolean | null;
  seq: Seq;
  timestamp: Timestamp;
  type: "health_update";
}

/** Comes whatever else flows: two missed, and the link is gone. */
export interface Heartbeat {
  /** That of the request, if it had one. */
  correlation_id: string;
  data: HeartbeatData;
  timestamp: Timestamp;
  type: "heartbeat";
}

/** Comes whatever else flows: two missed, and the link is gone. */
export interface HeartbeatData {
  /** Channels of readings, and how old the newest reading on each is, in ms. */
  ages: { [name: string]: number };
  /** The newest event that is on disk. */
  durable_through: Seq;
  /** This run of the daemon. */
  epoch: Epoch;
  /** The server's monotonic clock. */
  mono_ms: number;
}

/** Says that the client is there. It is not answered. */
export type HeartbeatRequest = {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "heartbeat";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** Says that the client is there. It is not answered. */
  data: { [name: string]: unknown };
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "heartbeat";
};

/** What was on some channels. */
export interface History {
  /** That of the request, if it had one. */
  correlation_id: string;
  data: HistoryData;
  timestamp: Timestamp;
  type: "history";
}

/** What was on some channels. */
export interface HistoryData {
  /** This run. */
  epoch: Epoch;
  /** As they were pushed, oldest first. */
  events: AnyEvent[];
  /** The first number that was looked at. */
  from: Seq;
  /** Ranges between `from` and `to` that are no longer in the log. */
  lost: ([Seq, Seq])[];
  /** Ask again with this as `before` for what is older; `None`: there is nothing older inside what was asked for. */
  next: Seq | null;
  /** The last number that was looked at, which is on disk. */
  to: Seq;
}

/** Asks what was on some channels: by `channels`, `subscription`, or `patient_id` with or without `metric`. */
export type HistoryRequest = {
  /** Before this event: the `next` of the page before. */
  before?: Seq | null;
  /** Channels, with `+` and `#`. */
  channels: string[];
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** From here on. */
  from?: Place | null;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  /** At most so many events; 100 if left out, and never more than 500. */
  limit?: number | null;
  /** Up to here. */
  to?: Place | null;
  type: "history";
} | {
  /** Before this event: the `next` of the page before. */
  before?: Seq | null;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** From here on. */
  from?: Place | null;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  /** At most so many events; 100 if left out, and never more than 500. */
  limit?: number | null;
  /** One channel, or one of the names that older clients use. */
  subscription: string;
  /** Up to here. */
  to?: Place | null;
  type: "history";
} | {
  /** Before this event: the `next` of the page before. */
  before?: Seq | null;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** From here on. */
  from?: Place | null;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  /** At most so many events; 100 if left out, and never more than 500. */
  limit?: number | null;
  /** Of what; of everything if left out. */
  metric?: Metric | null;
  /** Whose readings. */
  patient_id: PatientId;
  /** Up to here. */
  to?: Place | null;
  type: "history";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  data: {
    /** Before this event: the `next` of the page before. */
    before?: Seq | null;
    /** Channels, with `+` and `#`. */
    channels: string[];
    /** From here on. */
    from?: Place | null;
    /** At most so many events; 100 if left out, and never more than 500. */
    limit?: number | null;
    /** Up to here. */
    to?: Place | null;
  } | {
    /** Before this event: the `next` of the page before. */
    before?: Seq | null;
    /** From here on. */
    from?: Place | null;
    /** At most so many events; 100 if left out, and never more than 500. */
    limit?: number | null;
    /** One channel, or one of the names that older clients use. */
    subscription: string;
    /** Up to here. */
    to?: Place | null;
  } | {
    /** Before this event: the `next` of the page before. */
    before?: Seq | null;
    /** From here on. */
    from?: Place | null;
    /** At most so many events; 100 if left out, and never more than 500. */
    limit?: number | null;
    /** Of what; of everything if left out. */
    metric?: Metric | null;
    /** Whose readings. */
    patient_id: PatientId;
    /** Up to here. */
    to?: Place | null;
  };
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "history";
};

/** What changed in the inboxes, beside messages that came in, and what people asked for under names of their own. */
export type InboxChange = {
  change: "known";
  /** As what. */
  listens: Listens;
  /** The user. */
  user: string;
} | {
  change: "forgotten";
  /** The user. */
  user: string;
} | {
  change: "preferences";
  /** From now on. */
  preferences: Preferences;
  /** The user. */
  user: string;
} | {
  change: "requested";
  /** Of the command. */
  digest: string;
  /** Of the person and the name. */
  id: string;
  /** The last event of it; `None`: it was begun. */
  last: Seq | null;
} | {
  change: "not_done";
  /** Of the person and the name. */
  id: string;
} | {
  change: "scheduled";
  /** It. */
  reminder: Reminder;
} | {
  change: "withdrawn";
  /** Its identity. */
  id: string;
} | {
  change: "handed_over";
  /** Which. */
  id: string;
  /** The user. */
  user: string;
} | {
  change: "delivered";
  /** Which. */
  ids: string[];
  /** The user. */
  user: string;
} | {
  change: "dropped";
  /** Which. */
  ids: string[];
  /** All of which the user has not been told yet. */
  untold: Dropped;
  /** The user. */
  user: string;
} | {
  change: "expired";
  /** Which. */
  ids: string[];
};

/** One known parameter of a score. */
export interface Input {
  age_ms: number;
  by?: string | null;
  device_id?: DeviceId | null;
  metric?: Metric | null;
  parameter: Parameter;
  points: number;
  value: Shown;
}

/** Listens to a room and is there. A name of an older system (`clinic_1`, `doctor_7`) means its channels too. */
export type JoinRoomRequest = {
  conversation_id: RoomName;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  /** The last event that the client has. */
  since?: Since | null;
  type: "join_room";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  session_id: RoomName;
  /** The last event that the client has. */
  since?: Since | null;
  type: "join_room";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  data: {
    conversation_id: RoomName;
    /** The last event that the client has. */
    since?: Since | null;
  } | {
    session_id: RoomName;
    /** The last event that the client has. */
    since?: Since | null;
  };
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "join_room";
};

/** Listens to a room and is there. A name of an older system (`clinic_1`, `doctor_7`) means its channels too. */
export type JoinSessionRequest = {
  conversation_id: RoomName;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  /** The last event that the client has. */
  since?: Since | null;
  type: "join_session";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  session_id: RoomName;
  /** The last event that the client has. */
  since?: Since | null;
  type: "join_session";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  data: {
    conversation_id: RoomName;
    /** The last event that the client has. */
    since?: Since | null;
  } | {
    session_id: RoomName;
    /** The last event that the client has. */
    since?: Since | null;
  };
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "join_session";
};

/** A source as a backend sees it. */
export interface KnownDevice {
  /** The device at the other end. */
  device_id: DeviceId;
  /** How it is reached. */
  kind: "ble" | "serial" | "simulator" | "replay" | "unusable";
  /** Real, demo or test. */
  mode: "real" | "demo" | "test";
  /** Whose readings these are, if they are somebody's. */
  patient_id: PatientId | null;
  /** Which profile reads it, if one does. */
  profile: string | null;
  /** Its name. */
  source_id: SourceId;
}

/** Leaves a room. */
export type LeaveRoomRequest = {
  conversation_id: RoomName;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "leave_room";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  session_id: RoomName;
  type: "leave_room";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  data: {
    conversation_id: RoomName;
  } | {
    session_id: RoomName;
  };
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "leave_room";
};

/** Leaves a room. */
export type LeaveSessionRequest = {
  conversation_id: RoomName;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "leave_session";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  session_id: RoomName;
  type: "leave_session";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  data: {
    conversation_id: RoomName;
  } | {
    session_id: RoomName;
  };
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "leave_session";
};

/** What became of a change of limits. */
export type LimitAction = "set" | "cleared" | "disabled" | "enabled" | "stands" | "expired" | "replaced" | "unfit";

/** The `data` of a `limits_changed`: what one rule says for one patient from now on. */
export interface LimitsChanged {
  /** Which bridge, where the receiver hears several: `bridge`, `epoch` and `seq` name the event for ever. */
  bridge?: BridgeId | null;
  channel: string;
  /** Where the clock was not set by which it is dated: [`dated`] says so. */
  clock?: ClockNote | null;
  /** `{epoch}:{seq}`; of a message for people, its id. */
  correlation_id: string;
  data: LimitsData;
  epoch: Epoch;
  /** It waited for the connection to the receiver. */
  historical?: boolean | null;
  /** The client may have had it before: [`redelivered`] says so. */
  redelivered?: boolean | null;
  seq: Seq;
  timestamp: Timestamp;
  type: "limits_changed";
}

/** The `data` of a `limits_changed`: what one rule says for one patient from now on. */
export interface LimitsData {
  action: LimitAction;
  after: string;
  /** ALARM OFF. */
  alarm_off: boolean;
  before: string;
  by: string;
  /** The change holds from now on; false: it has come to its end. */
  in_force: boolean;
  patient_id: PatientId;
  reason: string;
  rule: RuleId;
  set: Timestamp | null;
  set_by: string;
  /** Until when, if it holds. */
  until: Timestamp | null;
}

/** The state of a link to a sensor or monitor. */
export type LinkState = "closed" | "opening" | "waiting" | "live" | "silent" | "sensor_off" | "lost";

/** Somebody who listens to notifications, as the last token said. */
export interface Listens {
  /** The role's name. */
  role: string;
  /** When the user last began to listen. */
  seen: Wall;
  /** The channels that the token covers; `None`: all. */
  sees: string[] | null;
}

/** The user has read a room up to an event. */
export type MarkReadRequest = {
  conversation_id: RoomName;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  /** The event. */
  seq: Seq;
  type: "mark_read";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  /** The event. */
  seq: Seq;
  session_id: RoomName;
  type: "mark_read";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  data: {
    conversation_id: RoomName;
    /** The event. */
    seq: Seq;
  } | {
    /** The event. */
    seq: Seq;
    session_id: RoomName;
  };
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "mark_read";
};

/** What somebody wrote in a room. The first three members are those of older clients. */
export interface MessageReceived {
  /** Which bridge, where the receiver hears several: `bridge`, `epoch` and `seq` name the event for ever. */
  bridge?: BridgeId | null;
  channel: string;
  /** Where the clock was not set by which it is dated: [`dated`] says so. */
  clock?: ClockNote | null;
  /** `{epoch}:{seq}`; of a message for people, its id. */
  correlation_id: string;
  data: ChatMessageData;
  epoch: Epoch;
  /** It waited for the connection to the receiver. */
  historical?: boolean | null;
  /** The client may have had it before: [`redelivered`] says so. */
  redelivered?: boolean | null;
  seq: Seq;
  timestamp: Timestamp;
  type: "message_received";
}

/** Writes in a room. Its `correlation_id` is its name for ever: what is sent twice under it is one message. */
export type MessageRequest = {
  conversation_id: RoomName;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  message: string;
  type: "message";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  message: string;
  session_id: RoomName;
  type: "message";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  data: {
    conversation_id: RoomName;
    message: string;
  } | {
    message: string;
    session_id: RoomName;
  };
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "message";
};

/** What a number says about a patient or a device. Codes and units: [`Metric::info`]. */
export type Metric = "heart_rate" | "pulse_rate" | "rr_interval" | "spo2" | "perfusion_index" | "blood_pressure" | "arterial_pressure" | "cuff_pressure" | "temperature" | "respiratory_rate" | "etco2" | "fio2" | "tidal_volume" | "minute_volume" | "peak_airway_pressure" | "plateau_pressure" | "mean_airway_pressure" | "peep" | "central_venous_pressure" | "glucose" | "weight" | "height" | "bmi" | "body_fat" | "fat_free_mass" | "soft_lean_mass" | "body_water" | "battery" | "news2" | "heart_rate_variability";

/** Whether a reading is about a patient or about nobody. Never mixed on one patient. */
export type Mode = "real" | "demo" | "test";

/** Several events that waited for the connection, as [`bundle`] writes them. */
export interface MqttBatch {
  bridge: BridgeId;
  /** Oldest first, each as it would come alone. */
  data: AnyUpload[];
  /** The number of the first. */
  first_seq: Seq;
  historical: true;
  /** The number of the last. */
  last_seq: Seq;
  /** When the last was published. */
  timestamp: Timestamp;
  type: "batch";
}

/** The `data` of `birth`. */
export interface MqttBirth {
  bridge: BridgeId;
  data: BirthData;
  epoch: Epoch;
  site: SiteId;
  timestamp: Timestamp;
  type: "birth";
}

/** What a person behind the broker wants done. Of these only the commands that `mqtt.commands` lists; under the same `correlation_id` of the same person it is done once, for 24 h. */
export type MqttCommand = {
  alert_id: Uuid;
  /** The person, of 1 to 100 bytes. In the audit trail it is `mqtt:` and this. */
  by: string;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The newest event of the alert that the person saw. */
  expected_seq: Seq;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  name: "alert.acknowledge";
  type?: "command";
} | {
  alert_id: Uuid;
  /** The person, of 1 to 100 bytes. In the audit trail it is `mqtt:` and this. */
  by: string;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  expected_seq?: Seq | null;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  name: "alert.pause_audio";
  /** 120 if left out. */
  seconds?: number | null;
  type?: "command";
} | {
  alert_id: Uuid;
  /** The person, of 1 to 100 bytes. In the audit trail it is `mqtt:` and this. */
  by: string;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  expected_seq?: Seq | null;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  name: "alert.reset";
  type?: "command";
} | {
  above?: number | null;
  at_least?: number | null;
  at_most?: number | null;
  below?: number | null;
  /** The person, of 1 to 100 bytes. In the audit trail it is `mqtt:` and this. */
  by: string;
  clear?: unknown;
  clear_delay?: string | null;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  delay?: string | null;
  /** Until when. */
  expires: string;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  name: "limits.set";
  patient_id: PatientId;
  /** Why. */
  reason: string;
  rule: RuleId;
  type?: "command";
  /** As in a rule file. The four limits may stand beside the other members instead. */
  when?: unknown;
} | {
  /** The person, of 1 to 100 bytes. In the audit trail it is `mqtt:` and this. */
  by: string;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  name: "limits.clear";
  patient_id: PatientId;
  reason?: string | null;
  rule: RuleId;
  type?: "command";
} | {
  /** The person, of 1 to 100 bytes. In the audit trail it is `mqtt:` and this. */
  by: string;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  name: "rule.disable";
  patient_id: PatientId;
  /** Why. */
  reason: string;
  rule: RuleId;
  type?: "command";
  /** Until when. */
  until: string;
} | {
  /** The person, of 1 to 100 bytes. In the audit trail it is `mqtt:` and this. */
  by: string;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  name: "rule.enable";
  patient_id: PatientId;
  reason?: string | null;
  rule: RuleId;
  type?: "command";
} | {
  /** The person, of 1 to 100 bytes. In the audit trail it is `mqtt:` and this. */
  by: string;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  name: "device.confirm";
  serial_number: string;
  source_id: SourceId;
  type?: "command";
} | {
  /** The person, of 1 to 100 bytes. In the audit trail it is `mqtt:` and this. */
  by: string;
  command: string;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  name: "device.command";
  source_id: SourceId;
  type?: "command";
} | {
  /** The person, of 1 to 100 bytes. In the audit trail it is `mqtt:` and this. */
  by: string;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  epoch: Epoch;
  first_seq: number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  last_seq: number;
  name: "uplink.resend";
  type?: "command";
};

/** One document: a device and what it shows. It is no event and has no envelope. */
export interface MqttDiscovery {
  /** Where it is told whether the numbers can be there at all; left out of the bridge's own document. */
  availability?: DiscoveredAvailability[] | null;
  /** What it shows, by names that are unique in the document. */
  components: { [name: string]: DiscoveredComponent };
  /** The device, as Home Assistant lists it. */
  device: DiscoveredDevice;
  /** Who says so. */
  origin: DiscoveryOrigin;
  /** With which quality of service the topics are subscribed. */
  qos: number;
}

/** A message without a byte, taken as text: what the broker keeps on the topic is gone. The doctor's message is one too, and kept nowhere. */
export type MqttEmpty = string;

/** What Home Assistant says of itself on its own topic, as text without quotation marks. Other words, and what the broker kept, are passed over. */
export type MqttHomeAssistant = "online" | "offline";

/** What changed in the inboxes, beside messages that came in, and what people asked for under names of their own. */
export interface MqttInbox {
  /** Which bridge, where the receiver hears several: `bridge`, `epoch` and `seq` name the event for ever. */
  bridge?: BridgeId | null;
  channel: string;
  /** Where the clock was not set by which it is dated: [`dated`] says so. */
  clock?: ClockNote | null;
  /** `{epoch}:{seq}`; of a message for people, its id. */
  correlation_id: string;
  data: InboxChange;
  epoch: Epoch;
  /** It waited for the connection to the receiver. */
  historical?: boolean | null;
  /** The client may have had it before: [`redelivered`] says so. */
  redelivered?: boolean | null;
  seq: Seq;
  timestamp: Timestamp;
  type: "inbox";
}

/** What the bridge takes from the broker. */
export type MqttInput = MqttCommand | MqttHomeAssistant;

/** What the broker gets. */
export type MqttMessage = HealthUpdate | Alert | Notification | ChatMessage | ConversationCleared | DeviceStatus | Record | System | Audit | LimitsChanged | Observation | MqttInbox | MqttBatch | MqttStatus | MqttBirth | MqttResult | MqttDiscovery | MqttEmpty;

/** The answer to a command over the broker. */
export interface MqttResult {
  /** That of the request, if it had one. */
  correlation_id: string;
  data: CommandResultData;
  timestamp: Timestamp;
  type: "result";
}

/** The `data` of a bridge's `status`. */
export interface MqttStatus {
  bridge: BridgeId;
  data: StatusData;
  epoch: Epoch;
  site: SiteId;
  timestamp: Timestamp;
  type: "status";
}

/** Kinds of message that are not for this user. What has priority high always comes. */
export interface Mute {
  mute: NotificationKind[];
}

/** The payload. The first six members are those of older clients. */
export interface Notification {
  /** Which bridge, where the receiver hears several. */
  bridge?: BridgeId | null;
  channel: string;
  /** Where the clock was not set by which it is dated. */
  clock?: ClockNote | null;
  correlation_id: string;
  data: NotificationData;
  epoch: Epoch;
  /** It waited for the connection to the receiver. */
  historical?: boolean | null;
  /** Older clients look for the payload here. */
  notification: NotificationData;
  seq: Seq;
  timestamp: Timestamp;
  type: "notification";
}

/** The payload. The first six members are those of older clients. */
export interface NotificationData {
  alert_id: Uuid | null;
  /** Whether that alert stands, where it is sent after a wait. */
  alert_stands?: boolean | null;
  created_at: Timestamp;
  expires_at: Timestamp | null;
  from: string | null;
  id: Uuid;
  message: string;
  mode: Mode;
  patient_id: PatientId | null;
  priority: Priority;
  title: string;
  type: NotificationKind;
  /** Whose message this is, where it is sent to one user. */
  user_id?: UserId | null;
  /** For whom it is, where it is sent to a receiver of everything. */
  users?: string[] | null;
}

/** Kinds of message for people (the names that older clients know). */
export type NotificationKind = "health_alert" | "medication_reminder" | "appointment_reminder" | "system";

/** The envelope of a push. */
export interface Observation {
  /** Which bridge, where the receiver hears several: `bridge`, `epoch` and `seq` name the event for ever. */
  bridge?: BridgeId | null;
  channel: string;
  /** Where the clock was not set by which it is dated: [`dated`] says so. */
  clock?: ClockNote | null;
  /** `{epoch}:{seq}`; of a message for people, its id. */
  correlation_id: string;
  data: ObservationData;
  epoch: Epoch;
  /** It waited for the connection to the receiver. */
  historical?: boolean | null;
  /** The client may have had it before: [`redelivered`] says so. */
  redelivered?: boolean | null;
  seq: Seq;
  timestamp: Timestamp;
  type: "observation";
}

export interface ObservationData {
  by: string;
  consciousness: EnteredConsciousnessData | null;
  mode: Mode;
  oxygen: EnteredBreathingData | null;
  patient_id: PatientId;
}

/** A value, or any of several. */
export type OneOrMoreAlertKind = AlertKind | AlertKind[];

/** A value, or any of several. */
export type OneOrMoreMetric = Metric | Metric[];

/** A value, or any of several. */
export type OneOrMoreMode = Mode | Mode[];

/** A value, or any of several. */
export type OneOrMorePriority = Priority | Priority[];

/** A value, or any of several. */
export type OneOrMoreQuality = Quality | Quality[];

/** A value, or any of several. */
export type OneOrMoreTagText = TagText | TagText[];

/** One of the seven parameters of the National Early Warning Score 2. */
export type Parameter = "respiratory_rate" | "spo2" | "oxygen" | "systolic" | "pulse" | "consciousness" | "temperature";

/** A patient as configured. */
export interface Patient {
  /** The bed, as people name it. */
  bed: string;
  /** The identifier in every message. */
  id: PatientId;
  /** Real, demo or test: the mode of all the patient's sources. */
  mode: Mode;
  /** What people read; the identifier where nothing else is configured. */
  name: string;
  /** The ward. */
  ward: WardId;
}

/** A person whose vitals are read. Chosen by whoever writes the configuration; not a name. */
export type PatientId = string;

/** Asks whether the server is there. */
export type PingRequest = {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "ping";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** Asks whether the server is there. */
  data: { [name: string]: unknown };
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "ping";
};

/** An event, or a time of publishing; both included. */
export type Place = Seq | string;

/** The answer to `ping`. */
export interface Pong {
  /** That of the request, if it had one. */
  correlation_id: string;
  data: PongData;
  timestamp: Timestamp;
  type: "pong";
}

/** The answer to `ping`. */
export interface PongData {
  /** The server's monotonic clock. */
  mono_ms: number;
}

/** Says that the client is there. It is not answered. */
export type PongRequest = {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "pong";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** Says that the client is there. It is not answered. */
  data: { [name: string]: unknown };
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "pong";
};

/** What a user wants to be told of. */
export interface Preferences {
  /** Kinds that are not for this user, except what has priority high. */
  mute: NotificationKind[];
}

/** What a user is told of. */
export interface PreferencesData {
  /** What never is. */
  never_muted: Priority[];
  /** True. */
  ok: true;
  /** What is muted. */
  preferences: Preferences;
}

/** Somebody came into a room, or left it. */
export interface Presence {
  channel: string;
  correlation_id: string;
  data: PresenceData;
  timestamp: Timestamp;
  type: "presence";
}

/** Somebody came into a room, or left it. */
export interface PresenceData {
  /** The room. */
  conversation_id: string;
  /** How many are there now. */
  member_count: number;
  /** Who is there now, as far as a list reaches. */
  members: UserId[];
  /** The room, as older clients name it. */
  session_id: string;
  /** `online` or `offline`. */
  status: "online" | "offline";
  /** Who. */
  user_id: UserId;
}

/** Alert priority (IEC 60601-1-8, table 1), and `info`, which signals nothing. */
export type Priority = "info" | "low" | "medium" | "high";

/** How far a reading can be trusted (IEEE 11073-10207 measurement validity, and two of our own). */
export type Quality = "valid" | "validated" | "ongoing" | "questionable" | "calibrating" | "invalid" | "overflow" | "underflow" | "not_available" | "implausible" | "historic";

/** The user has read a room up to an event, on some client. */
export interface ReadData {
  /** The room. */
  conversation_id: string;
  /** The room, as older clients name it. */
  session_id: string;
  /** The event. */
  through: Seq;
  /** Who. */
  user_id: UserId;
}

/** The `data` of a `health_update`. `vitalbridge decode` prints the same without the members that need a source. */
export interface ReadingData {
  absent?: Absent | null;
  components?: Components | null;
  derived?: Derived | null;
  /** The metrics from which the bridge computed it. */
  derived_from?: Metric[] | null;
  device_id?: DeviceId | null;
  device_time?: string | null;
  /** Beat intervals in ms, oldest first. */
  intervals?: Decimal[] | null;
  loinc?: string | null;
  mdc: number;
  metric: Metric;
  mode?: Mode | null;
  news2?: EarlyWarningData | null;
  patient_id?: PatientId | null;
  quality: Quality;
  received?: Timestamp | null;
  source_id?: SourceId | null;
  timestamp?: Timestamp | null;
  ts_source?: TimeSource | null;
  ts_uncertainty_ms?: number | null;
  /** For machines (UCUM). */
  ucum: string;
  /** For people. */
  unit: string;
  value: Decimal | null;
  variability?: Spread | null;
}

/** How far alerts have come. */
export type ReceiptState = "delivered" | "shown";

/** The `data` of a `record`. */
export interface Record {
  /** Which bridge, where the receiver hears several: `bridge`, `epoch` and `seq` name the event for ever. */
  bridge?: BridgeId | null;
  channel: string;
  /** Where the clock was not set by which it is dated: [`dated`] says so. */
  clock?: ClockNote | null;
  /** `{epoch}:{seq}`; of a message for people, its id. */
  correlation_id: string;
  data: RecordData;
  epoch: Epoch;
  /** It waited for the connection to the receiver. */
  historical?: boolean | null;
  /** The client may have had it before: [`redelivered`] says so. */
  redelivered?: boolean | null;
  seq: Seq;
  timestamp: Timestamp;
  type: "record";
}

/** The `data` of a `record`. */
export interface RecordData {
  characteristic: string;
  context?: string | null;
  device_id: DeviceId;
  device_time: string | null;
  first_reading: Seq | null;
  found: string[];
  last_reading: Seq | null;
  mode: Mode;
  number: number | null;
  patient_id: PatientId | null;
  raw: string;
  source_id: SourceId;
  user: number | null;
}

/** Signs in, or goes on with a newer token of the same user. */
export type RefreshRequest = {
  /** What the client calls itself, for those who manage connections. */
  client?: string | null;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  /** A JSON Web Token. */
  token: string;
  type: "refresh";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** Signs in, or goes on with a newer token of the same user. */
  data: {
    /** What the client calls itself, for those who manage connections. */
    client?: string | null;
    /** A JSON Web Token. */
    token: string;
  };
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "refresh";
};

/** It was not done. */
export interface RefusedData {
  /** For programs. */
  code: string;
  /** For people. */
  message: string;
  /** False. */
  ok: false;
}

/** What a person wants sent to people, now or later. */
export interface Reminder {
  /** When, by the time of day. */
  at: Wall;
  /** Who sends it. */
  by: string;
  /** It is of no use any more after this. */
  expires: Wall | null;
  /** The identity of the notification that it becomes. */
  id: string;
  /** What kind. */
  kind: NotificationKind;
  /** The text. */
  message: string;
  /** Real, demo or test: the mode of the patient. */
  mode: Mode;
  /** The patient it is about. */
  patient: PatientId | null;
  /** How urgent. */
  priority: Priority;
  /** Everybody known with one of these roles. */
  roles: string[];
  /** The headline. */
  title: string;
  /** These users. */
  users: string[];
}

/** The answer to a command or a question. */
export interface Result {
  /** That of the request, if it had one. */
  correlation_id: string;
  data: ResultData;
  timestamp: Timestamp;
  type: "result";
}

/** The answer to a command or a question. */
export type ResultData = DoneData | RefusedData | PreferencesData;

/** The clinical risk. */
export type Risk = "low" | "low-medium" | "medium" | "high";

/** What a user is. */
export type Role = "viewer" | "nurse" | "clinician" | "admin" | "service";

/** A room of the care team. */
export interface RoomData {
  /** How many are there. */
  member_count: number;
  /** Who is there, as far as a list reaches. */
  members: UserId[];
  /** Up to where this user has read; null where that is not known. */
  read_through: Seq | null;
}

/** A room: 1 to 64 of A-Z a-z 0-9 _ -, also behind `conversation:`, or a number as some clients count. */
export type RoomName = string | number;

/** One alert rule of the rule file. */
export type RuleId = string;

/** How samples are written. */
export type SampleFormat = "u8" | "i16le" | "i32le";

/** Writes in a room. Its `correlation_id` is its name for ever: what is sent twice under it is one message. */
export type SendMessageRequest = {
  conversation_id: RoomName;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  message: string;
  type: "send_message";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  message: string;
  session_id: RoomName;
  type: "send_message";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  data: {
    conversation_id: RoomName;
    message: string;
  } | {
    message: string;
    session_id: RoomName;
  };
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "send_message";
};

/** The kinds of message that a person may send. */
export type SentKind = "medication_reminder" | "appointment_reminder" | "system";

/** The number of an event inside the log: rises by one, without gaps inside an epoch, and starts at 1. */
export type Seq = number;

/** What the server says in JSON text. */
export type ServerMessage = HealthUpdate | Alert | Notification | ChatMessage | ConversationCleared | DeviceStatus | Record | System | Audit | LimitsChanged | Observation | MessageReceived | Presence | SessionUpdate | Typing | TypingIndicator | ConversationRead | Activity | Welcome | Authenticated | AuthError | TokenExpiring | Subscribed | Unsubscribed | Snapshot | Streams | Gap | History | Complete | ConversationHistory | Heartbeat | Pong | Result | Error | AlertSystem | Closing | CompactReading;

/** Somebody came into a room, or left it. */
export interface SessionUpdate {
  channel: string;
  correlation_id: string;
  data: PresenceData;
  timestamp: Timestamp;
  type: "session_update";
}

/** Chooses what to be told of. */
export type SetPreferencesRequest = {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  mute: NotificationKind[];
  type: "set_preferences";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  preferences: Mute;
  type: "set_preferences";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  data: {
    mute: NotificationKind[];
  } | {
    preferences: Mute;
  };
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "set_preferences";
};

/** A number as it was measured, or the word that a person entered. */
export type Shown = Decimal | "air" | "oxygen" | "A" | "C" | "V" | "P" | "U";

/** One signal of an alert. */
export interface Signal {
  /** Whether it is switched on. */
  activation: Activation;
  /** What it is doing. */
  presence: SignalPresence;
}

/** What a signal is doing (IEEE 11073-10207, `AlertSignalPresence`). */
export type SignalPresence = "on" | "off" | "latched" | "ack";

/** Times of some numbers of one patient. */
export interface SignalTimes {
  /** From this age on they are not shown any more, in ms. */
  lost_after_ms: number;
  /** Which. */
  metrics: Metric[];
  /** Whose. */
  patient_id: PatientId;
  /** From this age on they are drawn as old, in ms. */
  stale_after_ms: number;
}

export interface Signals {
  audio: Signal;
  visual: Signal;
}

/** The last event that a client has. */
export interface Since {
  epoch: Epoch;
  seq: Seq;
}

/** The place a bridge stands in, the level above it in MQTT topics. */
export type SiteId = string;

/** The `data` of a `snapshot`: the state that later pushes change. */
export interface Snapshot {
  /** That of the request, if it had one. */
  correlation_id: string;
  data: SnapshotData;
  timestamp: Timestamp;
  type: "snapshot";
}

/** The `data` of an `alert`: the whole state of the episode after the change. */
export interface SnapshotAlert {
  absent: Absent | null;
  alert_id: Uuid;
  announced: Timestamp;
  by: string | null;
  change: AlertChange;
  channel: string;
  condition: Condition;
  device_id: DeviceId | null;
  end_reason: EndReason | null;
  epoch: Epoch;
  /** The numbers of the escalation routes it has taken, from 1 on. */
  escalated?: number[];
  hidden_by: Uuid | null;
  kind: AlertKind;
  limit: string;
  message: string;
  metric: Metric | null;
  mode: Mode;
  onset: Timestamp;
  patient_id: PatientId | null;
  paused_until: Timestamp | null;
  priority: Priority;
  recurrence: number;
  rule: RuleId;
  seq: Seq;
  signal: Signals;
  value: Decimal | null;
}

/** The `data` of a `snapshot`: the state that later pushes change. */
export interface SnapshotData {
  alerts: SnapshotAlert[];
  devices: SnapshotSource[];
  /** What people changed of the limits, ALARM OFF among it. */
  limits: SnapshotLimits[];
  /** From this age on it is not shown any more: the moment at which its no-signal alert starts. */
  lost_after_ms: number;
  mode: Mode;
  mono_ms: number;
  patients: Patient[];
  readings: SnapshotReading[];
  /** The numbers that have other times, all of them longer. */
  signal_times: SignalTimes[];
  /** From this age on a continuous number is drawn as old, if `signal_times` does not say otherwise. */
  stale_after_ms: number;
}

/** The `data` of a `limits_changed`: what one rule says for one patient from now on. */
export interface SnapshotLimits {
  action: LimitAction;
  after: string;
  /** ALARM OFF. */
  alarm_off: boolean;
  before: string;
  by: string;
  channel: string;
  epoch: Epoch;
  /** The change holds from now on; false: it has come to its end. */
  in_force: boolean;
  patient_id: PatientId;
  reason: string;
  rule: RuleId;
  seq: Seq;
  set: Timestamp | null;
  set_by: string;
  /** Until when, if it holds. */
  until: Timestamp | null;
}

/** A reading in a snapshot: its data, its number and its age by our own clock. */
export interface SnapshotReading {
  absent?: Absent | null;
  age_ms: number;
  channel: string;
  components?: Components | null;
  derived?: Derived | null;
  /** The metrics from which the bridge computed it. */
  derived_from?: Metric[] | null;
  device_id?: DeviceId | null;
  device_time?: string | null;
  epoch: Epoch;
  /** Beat intervals in ms, oldest first. */
  intervals?: Decimal[] | null;
  loinc?: string | null;
  mdc: number;
  metric: Metric;
  mode?: Mode | null;
  news2?: EarlyWarningData | null;
  patient_id?: PatientId | null;
  quality: Quality;
  received?: Timestamp | null;
  seq: Seq;
  source_id?: SourceId | null;
  timestamp?: Timestamp | null;
  ts_source?: TimeSource | null;
  ts_uncertainty_ms?: number | null;
  /** For machines (UCUM). */
  ucum: string;
  /** For people. */
  unit: string;
  value: Decimal | null;
  variability?: Spread | null;
}

export interface SnapshotSource {
  channel: string;
  device_id: DeviceId;
  epoch: Epoch;
  link: LinkState;
  mode: Mode;
  patient_id: PatientId | null;
  reason: string | null;
  seq: Seq;
  source_id: SourceId;
  status: Status[];
}

export interface SourceData {
  device_id: DeviceId;
  link: LinkState;
  mode: Mode;
  patient_id: PatientId | null;
  reason: string | null;
  source_id: SourceId;
  status: Status[];
}

/** One configured way in: a serial port, a BLE strap, a replay file. */
export type SourceId = string;

/** The spread of the times between beats. */
export interface Spread {
  n: number;
  pnn50: Decimal;
  rejected: number;
  rmssd: Decimal;
  sdnn: Decimal;
}

/** What a sensor says about itself; one vocabulary for every device. */
export type Status = "no_sensor" | "sensor_off" | "sensor_fault" | "searching" | "low_perfusion" | "low_quality" | "artifact" | "signal_lost" | "lead_off" | "low_battery" | "device_alarm" | "alarm_silenced" | "cuff_too_loose" | "irregular_pulse" | "body_movement" | "improper_position" | "device_changed";

/** The `data` of a bridge's `status`. */
export interface StatusData {
  /** While it is online: for how many seconds its buffer would last without the broker; null if that is unknown. */
  buffer_seconds_left?: number | null;
  reason: "stopped" | "connection_lost" | null;
  state: "online" | "offline";
  /** While it is online: since when its disk takes no events. Alerts and the newest readings are sent all the same, with numbers that only its memory holds; null: everything is stored before it is sent. */
  storage_degraded_since?: Timestamp | null;
}

/** A stream. */
export interface StreamData {
  /** The channel of its readings. */
  channel: string;
  /** Those members of a reading's `data` that all of them have, unless a reading says otherwise. */
  data: { [name: string]: unknown };
  /** Its number. */
  stream: number;
}

/** Streams and their numbers in `vitals.v1.compact`: what readings of them have in common. A number is never given twice in a run of the daemon. */
export interface Streams {
  /** That of the request, if it had one. */
  correlation_id: string;
  data: StreamsData;
  timestamp: Timestamp;
  type: "streams";
}

/** Streams and their numbers in `vitals.v1.compact`: what readings of them have in common. A number is never given twice in a run of the daemon. */
export interface StreamsData {
  /** The moment from which compact readings count milliseconds. */
  base: Timestamp;
  /** The run that these numbers, and every compact reading, belong to. */
  epoch: Epoch;
  /** The streams that are new to this client. */
  streams: StreamData[];
}

/** Listens. Without channels: to what the address is for. */
export type SubscribeRequest = {
  /** The client acknowledges what comes on alerts' channels. */
  acks?: boolean | null;
  /** The client shows alerts to people. */
  annunciator?: boolean | null;
  /** Channels, with `+` and `#`. */
  channels?: string[] | null;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** How readings come. */
  delivery?: Delivery | null;
  /** What is wanted of the events on these channels. */
  filter?: Filter | null;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  /** The last event that the client has. */
  since?: Since | null;
  /** One channel, or one of the names that older clients use. */
  subscription?: string | null;
  type: "subscribe";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** Listens. Without channels: to what the address is for. */
  data: {
    /** The client acknowledges what comes on alerts' channels. */
    acks?: boolean | null;
    /** The client shows alerts to people. */
    annunciator?: boolean | null;
    /** Channels, with `+` and `#`. */
    channels?: string[] | null;
    /** How readings come. */
    delivery?: Delivery | null;
    /** What is wanted of the events on these channels. */
    filter?: Filter | null;
    /** The last event that the client has. */
    since?: Since | null;
    /** One channel, or one of the names that older clients use. */
    subscription?: string | null;
  };
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "subscribe";
};

/** The answer to `subscribe`. What was missed, then a `snapshot`, then the present follow. */
export interface Subscribed {
  /** That of the request, if it had one. */
  correlation_id: string;
  data: SubscribedData;
  timestamp: Timestamp;
  type: "subscribed";
}

/** The answer to `subscribe`. What was missed, then a `snapshot`, then the present follow. */
export interface SubscribedData {
  /** The channels of the request. */
  channels: string[];
  /** Of a client that acknowledges: the newest event of each alerts' channel that the user's clients have. Else null. */
  cursors: { [name: string]: Seq } | null;
  /** This run of the daemon. */
  epoch: Epoch;
  /** The first event that can come. */
  first_seq: Seq;
  /** The last event before the present. */
  last_seq: Seq;
  /** Ranges of events that are gone, first and last of each. */
  lost: ([Seq, Seq])[];
  /** Everything since `since` comes. */
  recovered: boolean;
  /** The rooms that were joined. */
  rooms: { [name: string]: RoomData };
}

/** The envelope of a push. */
export interface System {
  /** Which bridge, where the receiver hears several: `bridge`, `epoch` and `seq` name the event for ever. */
  bridge?: BridgeId | null;
  channel: string;
  /** Where the clock was not set by which it is dated: [`dated`] says so. */
  clock?: ClockNote | null;
  /** `{epoch}:{seq}`; of a message for people, its id. */
  correlation_id: string;
  data: SystemData;
  epoch: Epoch;
  /** It waited for the connection to the receiver. */
  historical?: boolean | null;
  /** The client may have had it before: [`redelivered`] says so. */
  redelivered?: boolean | null;
  seq: Seq;
  timestamp: Timestamp;
  type: "system";
}

export interface SystemData {
  first: Seq | null;
  kind: SystemKind;
  last: Seq | null;
  message: string;
}

/** What the bridge says about itself. */
export type SystemKind = "started" | "stopping" | "config_reloaded" | "config_refused" | "limits_unreadable" | "events_lost" | "alert_ended" | "clock_stepped" | "clock_epoch";

/** The value of a tag. */
export type TagText = string;

/** One limit in force. */
export interface Threshold {
  /** It is switched off for now. */
  alarm_off: boolean;
  /** How long it must hold. */
  delay_ms: number;
  /** The high limit. */
  high: Decimal | null;
  /** The low limit. */
  low: Decimal | null;
  /** What it looks at (`spo2`, `blood_pressure.systolic`). Empty: every continuous metric, or no metric. */
  metrics: string[];
  /** How urgent. */
  priority: Priority;
  /** The rule. */
  rule: RuleId;
  /** All of it in words. */
  summary: string;
  /** Unit of the limits. */
  unit: string;
}

/** Where the time of a measurement comes from. */
export type TimeSource = "device_synced" | "device_mapped" | "received" | "unsynced" | "unknown";

/** A moment, in UTC with milliseconds. */
export type Timestamp = string;

/** The token ends soon: refresh it. */
export interface TokenExpiring {
  /** That of the request, if it had one. */
  correlation_id: string;
  data: TokenExpiringData;
  timestamp: Timestamp;
  type: "token_expiring";
}

/** The token ends soon: refresh it. */
export interface TokenExpiringData {
  /** When. */
  expires_at: Timestamp;
}

/** Somebody types in a room, or has stopped to. */
export interface Typing {
  channel: string;
  correlation_id: string;
  data: TypingData;
  timestamp: Timestamp;
  type: "typing";
}

/** Somebody types in a room, or has stopped to. */
export interface TypingData {
  /** The room. */
  conversation_id: string;
  /** Types. */
  is_typing: boolean;
  /** The same as text. */
  sender: string;
  /** The room, as older clients name it. */
  session_id: string;
  /** Who. */
  user_id: UserId;
}

/** Somebody types in a room, or has stopped to. */
export interface TypingIndicator {
  channel: string;
  correlation_id: string;
  data: TypingData;
  timestamp: Timestamp;
  type: "typing_indicator";
}

/** The user types in a room, or has stopped to. */
export type TypingRequest = {
  conversation_id: RoomName;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  /** True if left out. */
  is_typing?: boolean | null;
  type: "typing";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  /** True if left out. */
  is_typing?: boolean | null;
  session_id: RoomName;
  type: "typing";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  data: {
    conversation_id: RoomName;
    /** True if left out. */
    is_typing?: boolean | null;
  } | {
    /** True if left out. */
    is_typing?: boolean | null;
    session_id: RoomName;
  };
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "typing";
};

/** Takes an entry back. */
export type Unknown = "unknown";

/** Stops listening. */
export type UnsubscribeRequest = {
  /** As they were subscribed to. */
  channels: string[];
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "unsubscribe";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  /** As it was subscribed to. */
  subscription: string;
  type: "unsubscribe";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  data: {
    /** As they were subscribed to. */
    channels: string[];
  } | {
    /** As it was subscribed to. */
    subscription: string;
  };
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "unsubscribe";
};

/** The answer to `unsubscribe`, or channels that a newer token does not allow. */
export interface Unsubscribed {
  /** That of the request, if it had one. */
  correlation_id: string;
  data: UnsubscribedData;
  timestamp: Timestamp;
  type: "unsubscribed";
}

/** The answer to `unsubscribe`, or channels that a newer token does not allow. */
export interface UnsubscribedData {
  /** Which. */
  channels: string[];
  /** These are lost of subscriptions that stay: the newer token does not allow them. */
  narrowed?: boolean | null;
}

/** A user: a number where the token's subject is all digits, else text. */
export type UserId = number | string;

/** The user types in a room, or has stopped to. */
export type UserTypingRequest = {
  conversation_id: RoomName;
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  /** True if left out. */
  is_typing?: boolean | null;
  type: "user_typing";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  /** True if left out. */
  is_typing?: boolean | null;
  session_id: RoomName;
  type: "user_typing";
} | {
  /** The client's name for it, echoed in the answer. */
  correlation_id?: string | number;
  data: {
    conversation_id: RoomName;
    /** True if left out. */
    is_typing?: boolean | null;
  } | {
    /** True if left out. */
    is_typing?: boolean | null;
    session_id: RoomName;
  };
  /** The client's name for it, echoed in the answer. */
  id?: string | number;
  type: "user_typing";
};

/** The id of an alert or of a message for people. */
export type Uuid = string;

/** Milliseconds since 1970-01-01 UTC, shown as RFC 3339 with milliseconds. */
export type Wall = number;

/** A group of beds that is watched together. */
export type WardId = string;

/** The header of a binary message with samples: its length (2 bytes, least significant first) stands before it, the samples behind it. */
export interface Waveform {
  /** The sample that is zero signal. */
  baseline: number;
  channel: string;
  device_id: DeviceId;
  epoch: Epoch;
  /** The number of the first sample since the source started. */
  first: number;
  format: SampleFormat;
  /** The device's own bytes were lost before the first sample. */
  gap: boolean;
  /** Samples a second, nominally. */
  hz: number;
  mode: Mode;
  /** Samples. */
  n: number;
  patient_id?: PatientId | null;
  /** When the last sample arrived. */
  received: Timestamp;
  /** How many samples are at an end of the converter's range. */
  saturated: number;
  source_id: SourceId;
  timestamp: Timestamp;
  type: "waveform";
  wave: string;
}

/** The first frame of a connection: who speaks, and how. */
export interface Welcome {
  /** That of the request, if it had one. */
  correlation_id: string;
  data: WelcomeData;
  timestamp: Timestamp;
  type: "welcome";
}

/** The first frame of a connection: who speaks, and how. */
export interface WelcomeData {
  /** Which bridge. */
  bridge_id: BridgeId;
  /** The number of this connection, for management and the log. */
  connection_id: string;
  /** This run of the daemon. */
  epoch: Epoch;
  /** A `heartbeat` comes this often. */
  heartbeat_ms: number;
  /** The server's monotonic clock. */
  mono_ms: number;
  /** The subprotocol of this connection. */
  protocol: string;
  /** `vitalbridge`. */
  server: string;
  /** Where it stands. */
  site: SiteId;
  /** Its version. */
  version: string;
}
