function View(p: Props) { return <div>{render(p)}</div>; }
/** A button. */
export const Button = forwardRef<HTMLButtonElement, Props>(({ label, onClick }, ref) => (
  <button ref={ref} onClick={onClick}>{label}</button>
));
export const Title = styled.h1`
  color: red;
`;
export default function App({ user, theme = "dark" }: { user: User; theme?: string }) { return <View user={user} />; }
