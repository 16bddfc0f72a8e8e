// Every message of the contract, used by its TypeScript type: `tsc --noEmit` holds the types to what programs do with them.

import type {
  ClientMessage, CompactReading, MqttMessage, ReadingData, ServerMessage, StreamData, Timestamp, Waveform,
} from '../../docs/schema/vitals.v1';

/** What a program does with each frame; a type that is new, or has gone, does not compile. */
export function tell(frame: ServerMessage): string {
  if (isCompact(frame)) return `${frame[0]} ${frame[1]} ${frame[2]} ${frame[3] + frame[4]} ${frame[5]?.['quality'] ?? 'valid'}`;
  switch (frame.type) {
    case 'health_update': return `${frame.channel} ${frame.seq} ${reading(frame.data)}`;
    case 'alert': return `${frame.data.alert_id} ${frame.data.priority} ${frame.data.condition.presence} ${frame.data.signal.audio.activation}`;
    case 'notification': return `${frame.notification.title} ${frame.data.type} ${frame.data.priority}`;
    case 'message_received':
    case 'chat_message': return `${frame.data.sender}: ${frame.data.message} (${frame.data.conversation_id})`;
    case 'conversation_cleared': return `${frame.data.conversation_id} ${frame.data.user_id} ${frame.data.everybody}`;
    case 'device_status': return `${frame.data.device_id} ${frame.data.link} ${frame.data.status.join(' ')}`;
    case 'record': return `${frame.data.characteristic} ${frame.data.raw}`;
    case 'system': return `${frame.data.kind} ${frame.data.message}`;
    case 'audit': return `${frame.data.by} ${frame.data.action} ${frame.data.result}`;
    case 'limits_changed': return `${frame.data.rule} ${frame.data.before} ${frame.data.after}`;
    case 'observation': return `${frame.data.oxygen?.value ?? 'unknown'} ${frame.data.consciousness?.value ?? 'unknown'}`;
    case 'welcome': return `${frame.data.protocol} ${frame.data.epoch} ${frame.data.heartbeat_ms}`;
    case 'authenticated': return `${frame.data.user_id} ${frame.data.role} ${frame.data.expires_at}`;
    case 'auth_error': return `${frame.data.code} ${frame.data.retryable}`;
    case 'token_expiring': return frame.data.expires_at;
    case 'subscribed': return `${frame.data.lost.map(([first, last]) => first + last).join()} ${frame.data.rooms['r']?.member_count} ${frame.data.cursors?.['alerts/P-1']}`;
    case 'unsubscribed': return `${frame.data.channels.join()} ${frame.data.narrowed ?? false}`;
    case 'snapshot': return frame.data.readings.map((one) => `${one.channel} ${one.age_ms} ${one.value ?? one.absent}`).join();
    case 'streams': return frame.data.streams.map((stream: StreamData) => stream.channel).join();
    case 'gap': return `${frame.data.from} ${frame.data.to} ${frame.data.streams.map((stream) => stream.channel + stream.skipped).join()}`;
    case 'history': return `${frame.data.events.map((event) => event.channel).join()} ${frame.data.next ?? ''}`;
    case 'complete': return `${frame.data.message_id ?? ''} ${frame.data.seq} ${frame.data.durable}`;
    case 'conversation_history': return frame.data.messages.map((line) => `${line.sender} ${line.message} ${line.timestamp}`).join();
    case 'presence':
    case 'session_update': return `${frame.channel} ${frame.data.status} ${frame.data.members.join()} ${frame.data.member_count}`;
    case 'typing':
    case 'typing_indicator': return `${frame.data.sender} ${frame.data.is_typing}`;
    case 'conversation_read': return `${frame.data.conversation_id} ${frame.data.through}`;
    case 'activity': return `${frame.data.patient_id} ${frame.data.viewers.join()} ${frame.data.viewer_count}`;
    case 'heartbeat': return Object.values(frame.data.ages).map((age) => age.toFixed()).join();
    case 'pong': return frame.data.mono_ms.toFixed();
    case 'result': return frame.data.ok ? ('seq' in frame.data ? `${frame.data.seq} ${frame.data.durable}` : frame.data.preferences.mute.join()) : frame.data.code;
    case 'error': return `${frame.data.scope} ${frame.data.message}`;
    case 'alert_system': return frame.data.alerts.map(({ alert_id: id, delivery }) => `${id} ${delivery ?? ''}`).join();
    case 'closing': return `${frame.data.code} ${frame.data.reconnect} ${frame.data.retry_after_ms}`;
    default: return never(frame);
  }
}

const isCompact = (frame: ServerMessage): frame is CompactReading => Array.isArray(frame);

function never(message: never): string {
  return String(message);
}

function reading(data: ReadingData): string {
  const measured: Timestamp = data.timestamp ?? '';
  return `${data.metric} ${data.value ?? data.absent} ${data.components?.systolic} ${data.news2?.band_min} ${data.variability?.sdnn} ${measured}`;
}

/** What the broker gets beside these. */
export function hear(message: MqttMessage): string {
  // What was retained is gone.
  if (typeof message === 'string') return message;
  if ('origin' in message) return message.origin.name;
  switch (message.type) {
    case 'inbox': return message.data.change;
    case 'batch': return `${message.first_seq} ${message.last_seq} ${message.data.map((event) => event.type).join()}`;
    case 'status': return `${message.bridge} ${message.data.state}`;
    case 'birth': return message.data.version;
    case 'result': return message.data.ok ? message.data.seq.toFixed() : message.data.message;
    default: return tell(message);
  }
}

/** The header of a wave. */
export const samples = (wave: Waveform): string => `${wave.first} ${wave.n} ${wave.hz} ${wave.format}`;

const id = '01928374-0000-7000-8000-000000000000';

/** One of every message that a program may send. */
export const said: ClientMessage[] = [
  { type: 'authenticate', token: 'a.b.c' },
  { type: 'refresh', data: { token: 'a.b.c' } },
  { type: 'subscribe', channels: ['alerts/+'], since: { epoch: 'k3f9', seq: 7 }, delivery: 'all', annunciator: true, id: 1 },
  { type: 'subscribe', channels: ['ward/icu/#'], delivery: { mode: 'sampled', max_rate_hz: 2 }, filter: { metric: ['spo2'], quality: 'valid' }, acks: true },
  { type: 'unsubscribe', channels: ['alerts/+'] },
  { type: 'history', channels: ['alerts/+'], from: 5, to: '2026-11-21T08:00:00Z' },
  { type: 'history', patient_id: 'P-1', metric: 'spo2', limit: 10 },
  { type: 'alert_receipt', state: 'shown', alerts: [{ alert_id: id, seq: 7 }] },
  { type: 'ack', ids: [id] },
  { type: 'ack', channel: 'notifications/7', seq: 9 },
  { type: 'ack', channel: 'alerts/+', seq: 9, epoch: 'k3f9' },
  { type: 'join_room', conversation_id: 'r' },
  { type: 'join_session', data: { session_id: 5 } },
  { type: 'leave_room', conversation_id: 'r' },
  { type: 'leave_session', session_id: 'r' },
  { type: 'message', conversation_id: 'r', message: 'Hello' },
  { type: 'send_message', session_id: 'r', message: 'Hello' },
  { type: 'typing', conversation_id: 'r', is_typing: true },
  { type: 'user_typing', session_id: 'r' },
  { type: 'clear_conversation', conversation_id: 'r', everybody: false },
  { type: 'get_conversation_history', conversation_id: 'r', limit: 20 },
  { type: 'mark_read', conversation_id: 'r', seq: 9 },
  { type: 'activity', patient_id: 'P-1' },
  { type: 'command', name: 'alert.acknowledge', alert_id: id, expected_seq: 7, correlation_id: 'c' },
  { type: 'command', data: { name: 'alert.pause_audio', alert_id: id, seconds: 60 } },
  { type: 'command', name: 'alert.reset', alert_id: id },
  { type: 'command', name: 'limits.set', patient_id: 'P-1', rule: 'spo2_low', below: 86, expires: '8h', reason: 'COPD' },
  { type: 'command', name: 'limits.clear', patient_id: 'P-1', rule: 'spo2_low' },
  { type: 'command', name: 'rule.disable', patient_id: 'P-1', rule: 'spo2_low', until: '1h', reason: 'surgery' },
  { type: 'command', name: 'rule.enable', patient_id: 'P-1', rule: 'spo2_low' },
  { type: 'command', name: 'observation.set', patient_id: 'P-1', oxygen: 'air', consciousness: 'unknown' },
  { type: 'command', name: 'device.confirm', source_id: 'port', serial_number: '5' },
  { type: 'command', name: 'device.command', source_id: 'port', command: 'nibp_start' },
  { type: 'command', name: 'notification.send', kind: 'system', users: [7, 'lena'], title: 't', message: 'm' },
  { type: 'command', name: 'notification.withdraw', notification_id: id },
  { type: 'command', name: 'preferences.set', mute: ['system'] },
  { type: 'command', name: 'uplink.resend', epoch: 'k3f9', first_seq: 1042, last_seq: 1091 },
  { type: 'set_preferences', mute: [] },
  { type: 'get_preferences' },
  { type: 'ping' },
  { type: 'heartbeat' },
  { type: 'pong' },
];

/** What the types do not let anybody say. */
export const unsaid: ClientMessage[] = [
  // @ts-expect-error: there is no such message.
  { type: 'fly' },
  // @ts-expect-error: a token is text.
  { type: 'authenticate', token: 5 },
  // @ts-expect-error: nobody acknowledges an alarm that he cannot name the last event of.
  { type: 'command', name: 'alert.acknowledge', alert_id: id },
  // @ts-expect-error: a rate belongs to it.
  { type: 'subscribe', channels: ['alerts/+'], delivery: { mode: 'sampled' } },
  // @ts-expect-error: a message has a text.
  { type: 'message', conversation_id: 'r' },
  // @ts-expect-error: there is no such delivery.
  { type: 'subscribe', channels: ['alerts/+'], delivery: 'some' },
];
